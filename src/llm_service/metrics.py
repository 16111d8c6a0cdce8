"""What the service counts for Prometheus. Labels have few values: never an id, a user or an error's text."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("llm_http_requests", "HTTP requests answered", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "llm_http_request_seconds",
    "Time to answer an HTTP request",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
JOBS_SUBMITTED = Counter("llm_jobs_submitted", "Jobs committed", ["workflow"])
SUBMITS_REFUSED = Counter("llm_submits_refused", "Submits over a limit", ["limit"])
WRONG_SECRETS = Counter("llm_wrong_secrets", "Requests with a wrong API secret")
JOBS_FINISHED = Counter(
    "llm_jobs_finished", "Jobs ended by this worker", ["workflow", "status", "error_code"]
)
JOB_SECONDS = Histogram(
    "llm_job_seconds",
    "Run time of a job's attempt",
    ["workflow"],
    buckets=(0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
JOB_WAIT_SECONDS = Histogram(
    "llm_job_wait_seconds",
    "Time from accepted (or due again) to claimed",
    buckets=(0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800),
)
JOBS_RUNNING = Gauge("llm_jobs_running", "Jobs this worker holds")
STALE_WRITES = Counter("llm_stale_writes", "Writes refused because the lease was no longer ours")
RESCUED = Counter("llm_jobs_rescued", "Jobs taken back from lost workers or told to Redis again", ["how"])
MODEL_CALLS = Counter("llm_model_calls", "Model calls", ["provider", "outcome"])
MODEL_SECONDS = Histogram(
    "llm_model_call_seconds",
    "Time of a model call",
    ["provider"],
    buckets=(0.05, 0.25, 1, 2.5, 5, 10, 30, 60, 120),
)
MODEL_TOKENS = Counter("llm_model_tokens", "Tokens used", ["provider", "direction"])
WEBHOOK_TRIES = Counter("llm_webhook_tries", "Webhook deliveries tried", ["outcome"])
WORKERS = Gauge("llm_workers_alive", "Workers that have beaten lately")
QUEUE_DEPTH = Gauge("llm_queue_jobs", "Unfinished jobs", ["status"])
QUEUE_OLDEST = Gauge("llm_queue_oldest_wait_seconds", "Age of the longest-waiting due job")
