DROP TABLE IF EXISTS llm_workflow_jobs;
