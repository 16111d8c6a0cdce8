DROP TABLE IF EXISTS llm_idempotency_keys;
