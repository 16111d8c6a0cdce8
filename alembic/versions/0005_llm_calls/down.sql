ALTER TABLE llm_workflow_jobs
    DROP COLUMN IF EXISTS total_tokens,
    DROP COLUMN IF EXISTS cost_usd;
DROP TABLE IF EXISTS llm_calls;
