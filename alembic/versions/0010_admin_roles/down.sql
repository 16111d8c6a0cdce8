ALTER TABLE llm_admin_sessions DROP COLUMN IF EXISTS role;
