ALTER TABLE llm_admin_audit DROP COLUMN IF EXISTS moved_at;
