ALTER TABLE IF EXISTS llm_webhook_deliveries DROP COLUMN IF EXISTS tries_before;
