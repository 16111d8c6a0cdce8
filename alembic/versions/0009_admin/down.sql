DROP TABLE IF EXISTS llm_admin_logins;
DROP TABLE IF EXISTS llm_admin_audit;
DROP TABLE IF EXISTS llm_admin_sessions;
