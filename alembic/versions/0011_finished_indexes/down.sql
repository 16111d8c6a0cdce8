DROP INDEX IF EXISTS idx_workflow_jobs_finished_error_code;
DROP INDEX IF EXISTS idx_workflow_jobs_finished_workflow_name;
DROP INDEX IF EXISTS idx_workflow_jobs_finished_action;
DROP INDEX IF EXISTS idx_workflow_jobs_finished_username;
DROP INDEX IF EXISTS idx_workflow_jobs_finished_user_id;
DROP INDEX IF EXISTS idx_workflow_jobs_finished_status;
DROP INDEX IF EXISTS idx_workflow_jobs_finished;
