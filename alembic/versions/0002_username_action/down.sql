ALTER TABLE llm_workflow_jobs
    DROP COLUMN IF EXISTS username,
    DROP COLUMN IF EXISTS action;
