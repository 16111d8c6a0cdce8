DROP TABLE IF EXISTS llm_workers;
DROP TABLE IF EXISTS llm_job_attempts;
ALTER TABLE llm_workflow_jobs RESET (fillfactor);
-- The service before could not read an encrypted secret, and has no room for one.
UPDATE llm_workflow_jobs SET webhook_secret = NULL WHERE length(webhook_secret) > 255;
ALTER TABLE llm_workflow_jobs
    ALTER COLUMN webhook_secret TYPE VARCHAR(255),
    DROP COLUMN IF EXISTS error_code,
    DROP COLUMN IF EXISTS attempt,
    DROP COLUMN IF EXISTS claims,
    DROP COLUMN IF EXISTS max_attempts,
    DROP COLUMN IF EXISTS lease_token,
    DROP COLUMN IF EXISTS lease_expires_at,
    DROP COLUMN IF EXISTS worker,
    DROP COLUMN IF EXISTS run_after,
    DROP COLUMN IF EXISTS hinted_at,
    DROP COLUMN IF EXISTS request_id,
    DROP COLUMN IF EXISTS retried_from;
