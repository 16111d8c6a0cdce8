DROP TABLE IF EXISTS llm_webhook_attempts;
DROP TABLE IF EXISTS llm_webhook_deliveries;
ALTER TABLE llm_workflow_jobs DROP COLUMN IF EXISTS webhook_state;
