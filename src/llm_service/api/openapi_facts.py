"""What the OpenAPI document says beyond the Python types: fields, parameters, headers, webhooks, its own routes."""

from typing import Any

from llm_service.api.errors import EXAMPLES as ERRORS
from llm_service.api.errors import envelope
from llm_service.api.openapi_examples import JOB_ID, UNHEALTHY, WEBHOOK_ID, webhook_example
from llm_service.errors import JobFailure
from llm_service.jobs.model import AttemptOutcome, CallStatus, JobStatus, WebhookState

Node = dict[str, Any]
JSON = "application/json"
DOCUMENT = "application/vnd.oai.openapi+json"
REF = "#/components/schemas/{name}"
ENDINGS = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)

HEADERS: Node = {
    "X-Request-ID": {
        "description": "Leads to this request in the log: the X-Request-ID that was sent, if it is 1 to 64 "
        "letters, digits, dots, dashes or underscores, else a new one.",
        "schema": {"type": "string", "maxLength": 64},
    },
    "Location": {
        "description": "The job, /api/v1/jobs/{job_id}.",
        "schema": {"type": "string", "format": "uri-reference"},
        "example": f"/api/v1/jobs/{JOB_ID}",
    },
    "Idempotent-Replay": {
        "description": "Present when this is the answer to an earlier request with the same Idempotency-Key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Retry-After": {
        "description": "Seconds to wait before the same request may succeed.",
        "schema": {"type": "integer", "minimum": 0},
        "example": 2,
    },
}

_SUMMARY: Node = {
    "status": {"enum": list(JobStatus)},
    "priority": {"minimum": 0, "maximum": 10, "description": "10 is most urgent."},
    "started_at": {"description": "The first claim by a worker."},
    "completed_at": {"description": "Set with any final state."},
    "duration_ms": {"description": "From started_at to completed_at; null where it never started."},
    "error_message": {"description": "Why it failed, in words."},
    "error_code": {
        "description": "Why it failed, in one word: "
        + ", ".join(sorted(kind.__name__ for kind in JobFailure.__subclasses__()))
        + ".",
    },
    "attempt": {"description": "How often a worker has begun it; an attempt given back does not count."},
    "webhook_state": {"enum": list(WebhookState)},
    "total_tokens": {"description": "Null while it runs, and where the provider did not say."},
    "cost_usd": {"description": "Null where a price is not known; never 0 for unknown."},
}
FACTS: dict[str, Node] = {
    "JobSummary": _SUMMARY,
    "JobDetail": _SUMMARY
    | {
        "input_data": {"type": "object", "description": "As it was submitted."},
        "result": {
            "description": "The workflow's output, as its output_schema has it; null until completed."
        },
        "retried_from": {"description": "The job that this one runs again."},
        "request_id": {"description": "The X-Request-ID of the submit."},
    },
    "JobsListResponse": {
        "total": {"description": "Every match before paging; null with count=none."},
        "limit": {"description": "The one in force: a numeric limit_results overrides the parameter."},
        "total_is_capped": {
            "description": "True: there are more than `total` says; count=exact counts them."
        },
        "next_cursor": {"description": "The `cursor` of the next page; null on the last."},
    },
    "AttemptDetail": {"outcome": {"enum": list(AttemptOutcome)}},
    "CallDetail": {"status": {"enum": list(CallStatus)}},
    "WebhookDetail": {"state": {"enum": list(WebhookState)}},
    "WorkflowSubmitResponse": {"status": {"enum": [JobStatus.PENDING]}},
    "JobRetryResponse": {"status": {"enum": [JobStatus.PENDING]}},
    "WebhookRedeliverResponse": {"webhook_state": {"enum": list(WebhookState)}},
    "JobCancelResponse": {"status": {"enum": [JobStatus.CANCELLED]}},
    "WebhookBody": {
        "event": {"enum": [f"workflow.{status}" for status in ENDINGS]},
        "status": {"enum": list(ENDINGS)},
        "result": {"description": "The workflow's output; null unless completed."},
        "result_truncated": {
            "description": "True when the result would have made the body larger than 1 MB."
        },
        "result_url": {"description": "Where to read a result that was left out."},
    },
}
"""What the Python types do not say about a field."""

USES_OF_LIMIT_RESULTS = {
    "25": "The newest 25",
    "50": "The newest 50",
    "100": "The newest 100",
    "200": "The newest 200",
    "Today": "Since 00:00 UTC",
    "7 Days": "The last 168 hours",
    "30 Days": "The last 720 hours",
}
PARAMETERS: dict[str, Node] = {
    "job_id": {"description": "The id from the 202.", "schema": {"type": "string", "format": "uuid"}},
    "limit_results": {
        # Two kinds, not a pattern: so a generated type refuses every other word.
        "schema": {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 500},
                {"type": "string", "enum": ["", *USES_OF_LIMIT_RESULTS]},
            ]
        },
        "examples": {
            use: {"summary": summary, "value": use} for use, summary in USES_OF_LIMIT_RESULTS.items()
        },
    },
}


def unhealthy() -> Node:
    """Give the 503 of the health routes: the same body as their 200."""
    return {
        "description": "Unhealthy: PostgreSQL is away, so that nothing can be accepted.",
        "content": {
            JSON: {
                "schema": {"$ref": REF.format(name="HealthResponse")},
                "examples": {"unhealthy": {"summary": "Unhealthy", "value": UNHEALTHY}},
            }
        },
    }


def unrouted() -> Node:
    """Give the answers that belong to no operation: an address that is not there, a method it does not take."""
    return {
        code: {
            "description": f"{ERRORS[code].status}: {ERRORS[code].message}",
            "content": {
                JSON: {
                    "schema": {"$ref": REF.format(name="ErrorResponse")},
                    "examples": {code: {"summary": code, "value": envelope(ERRORS[code])}},
                }
            },
        }
        for code in ("RouteNotFound", "MethodNotAllowed")
    }


def schema_paths() -> Node:
    """Give the routes of this document itself."""
    return {
        path: {
            "get": {
                "tags": ["Health"],
                "summary": "This document",
                "operationId": operation_id,
                "responses": {
                    "200": {
                        "description": "OpenAPI 3.1.",
                        "content": {DOCUMENT: {"schema": {"type": "object", "additionalProperties": True}}},
                    }
                },
            }
        }
        for path, operation_id in {"/schema": "Schema", "/schema/openapi.json": "SchemaOpenapiJson"}.items()
    }


def webhook(status: str) -> Node:
    """Describe what is sent to the `webhook_url` of a job that ended as `status`."""
    return {
        "tags": ["Webhooks"],
        "summary": f"A job has ended: {status}",
        "description": "Sent at least once, until a 2xx says that it was taken; `webhook-id` stays the same over all "
        "tries. Check a signature over the body as it was received, byte for byte, before parsing it.",
        "operationId": f"Workflow{status.capitalize()}",
        "security": [],
        "parameters": [
            _webhook_header("webhook-id", "Stable over all tries: what to know a repetition by.", WEBHOOK_ID),
            _webhook_header(
                "webhook-timestamp", "The time of this try, in seconds since 1970.", "1769850903"
            ),
            _webhook_header(
                "webhook-signature",
                "Standard Webhooks: `v1,` and the base64 HMAC-SHA256 of "
                "`{webhook-id}.{webhook-timestamp}.{body}`. Absent where there is no secret.",
                "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
                is_required=False,
            ),
            _webhook_header(
                "X-Webhook-Signature",
                "`sha256=` and the hex HMAC-SHA256 of the body alone. Absent where there is no secret.",
                "sha256=2b9f60c5c8a5a1e1d0f8b7c6a5948372615f4e3d2c1b0a99887766554433221f",
                is_required=False,
            ),
        ],
        "requestBody": {
            "required": True,
            "content": {
                JSON: {
                    "schema": {"$ref": REF.format(name="WebhookBody")},
                    "examples": {status: {"summary": status.capitalize(), "value": webhook_example(status)}},
                }
            },
        },
        "responses": {
            "2XX": {"description": "Taken."},
            "410": {"description": "Never again: no further tries are made."},
            "default": {
                "description": "Not taken, a redirect included: tried again after 5 s, 15 s, 45 s, 5 min, "
                "30 min, 2 h, 5 h and 10 h. Retry-After is honoured."
            },
        },
    }


def _webhook_header(name: str, description: str, example: str, *, is_required: bool = True) -> Node:
    return {
        "name": name,
        "in": "header",
        "required": is_required,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }
