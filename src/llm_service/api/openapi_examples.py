"""The examples of the OpenAPI document, by the name of the struct: one household's job as each route shows it."""

from typing import Any

JOB_ID = "01981c5e-7b1a-7c3e-9d52-2f6a1c0b9e44"
RETRY_ID = "01981c89-b3a2-7f10-8e47-5c6d7e8f9a0b"
USER_ID = "6f1c6f80-7d2f-4c4c-9a1e-0d6f1c9a1b2c"
WEBHOOK_ID = "msg_01981c5e8f0e7b7c8a4d5e6f70819203"
INPUT: dict[str, Any] = {
    "location": "Brno",
    "scenarios": ["flood"],
    "notes": "My sister Anna Novak (+420 777 123 456) lives two streets away.",
}
RESULT: dict[str, Any] = {
    "contacts": [
        {
            "name": "Anna Novak",
            "role": "sister",
            "phone": "+420 777 123 456",
            "reason": "She lives two streets away and can be with you first.",
        }
    ],
    "meeting_places": [],
}
USAGE = {"input_tokens": 412, "output_tokens": 96, "total_tokens": 508, "cost_usd": 0.00071, "calls": 1}
TIMES = {
    "created_at": "2026-01-31T09:15:00.120000Z",
    "started_at": "2026-01-31T09:15:00.180000Z",
    "completed_at": "2026-01-31T09:15:03.480000Z",
    "duration_ms": 3300,
}
ASKED_BY = {"user_id": USER_ID, "username": "jane_smith", "action": "generate contacts"}

SUMMARY: dict[str, Any] = {
    "job_id": JOB_ID,
    "workflow_name": "emergency_contacts",
    "status": "completed",
    "priority": 5,
    **ASKED_BY,
    **TIMES,
    "error_message": None,
    "error_code": None,
    "attempt": 1,
    "webhook_state": "delivered",
    "total_tokens": 508,
    "cost_usd": 0.00071,
}
FAILED_SUMMARY: dict[str, Any] = SUMMARY | {
    "job_id": "01981c5d-1f60-7a45-8c19-7d0e5b3a6f12",
    "workflow_name": "mission_generation",
    "status": "failed",
    "action": "generate mission report",
    "duration_ms": 120_400,
    "completed_at": "2026-01-31T09:17:00.580000Z",
    "error_message": "The model did not answer within 120 seconds.",
    "error_code": "ModelTimeout",
    "attempt": 3,
    "webhook_state": "none",
    "total_tokens": None,
    "cost_usd": None,
}
DETAIL: dict[str, Any] = SUMMARY | {
    "input_data": INPUT,
    "result": RESULT,
    "queued_at": TIMES["created_at"],
    "max_attempts": 3,
    "debug_mode": False,
    "webhook_url": "https://hooks.example.org/llm",
    "retried_from": None,
    "request_id": "01981c5e7b0f7d40a1b2c3d4e5f60718",
    "webhook": {
        "state": "delivered",
        "webhook_id": WEBHOOK_ID,
        "next_attempt_at": None,
        "attempts": [
            {
                "number": 1,
                "started_at": "2026-01-31T09:15:03.510000Z",
                "status_code": 204,
                "latency_ms": 38,
                "response": "",
                "error": None,
            }
        ],
    },
    "attempts": [
        {
            "worker": "worker-1",
            "started_at": TIMES["started_at"],
            "ended_at": TIMES["completed_at"],
            "outcome": "completed",
            "error_code": None,
        }
    ],
    "llm_calls": [
        {
            "step": "contacts",
            "provider": "openai",
            "model": "gpt-5-mini",
            "status": "succeeded",
            "started_at": "2026-01-31T09:15:00.200000Z",
            "completed_at": "2026-01-31T09:15:03.450000Z",
            "latency_ms": 3250,
            "input_tokens": 412,
            "output_tokens": 96,
            "cost_usd": 0.00071,
            "retries": 0,
            "error_code": None,
            "error_message": None,
            "prompt": None,
            "answer": None,
        }
    ],
    "usage": USAGE,
}
HEALTHY: dict[str, Any] = {
    "status": "healthy",
    "database": "up",
    "redis": "up",
    "workers": 2,
    "timestamp": "2026-01-31T09:15:00Z",
}
UNHEALTHY: dict[str, Any] = HEALTHY | {"status": "unhealthy", "database": "down", "workers": 0}

EXAMPLES: dict[str, dict[str, dict[str, Any]]] = {
    "WorkflowSubmitRequest": {
        "The least": {"workflow_name": "completion", "input_data": {"prompt": "Say hello."}},
        "With the context of who asked and why": {
            "workflow_name": "emergency_contacts",
            "input_data": INPUT,
            **ASKED_BY,
            "webhook_url": "https://hooks.example.org/llm",
            "webhook_secret": "a secret that both sides know",
            "priority": 5,
            "debug_mode": False,
        },
    },
    "WorkflowSubmitResponse": {
        "Accepted": {
            "job_id": JOB_ID,
            "workflow_name": "emergency_contacts",
            "status": "pending",
            "status_url": f"/api/v1/jobs/{JOB_ID}",
            "queued_at": TIMES["created_at"],
        }
    },
    "WorkflowValidateResponse": {
        "Valid": {"valid": True, "workflow_name": "emergency_contacts", "estimated_llm_calls": 1}
    },
    "WorkflowsResponse": {
        "One of them": {
            "workflows": [
                {
                    "name": "completion",
                    "description": "Answers one prompt in plain text.",
                    "version": "1.0.0",
                    "input_schema": {
                        "type": "object",
                        "properties": {"prompt": {"type": "string"}},
                        "required": ["prompt"],
                    },
                    "output_schema": {
                        "type": "object",
                        "properties": {"text": {"type": "string"}},
                        "required": ["text"],
                    },
                }
            ]
        }
    },
    "JobsListResponse": {
        "A page": {
            "jobs": [SUMMARY, FAILED_SUMMARY],
            "total": 2,
            "limit": 50,
            "offset": 0,
            "total_is_capped": False,
            "next_cursor": None,
        }
    },
    "JobDetail": {"A completed job": DETAIL},
    "JobCancelResponse": {
        "Cancelled": {"job_id": JOB_ID, "status": "cancelled", "message": "The job is cancelled."}
    },
    "JobRetryResponse": {
        "Accepted": {
            "job_id": RETRY_ID,
            "workflow_name": "emergency_contacts",
            "status": "pending",
            "status_url": f"/api/v1/jobs/{RETRY_ID}",
            "queued_at": "2026-01-31T10:02:11.034000Z",
            "retried_from": JOB_ID,
        }
    },
    "WebhookRedeliverResponse": {
        "Accepted": {
            "job_id": JOB_ID,
            "webhook_id": f"msg_{JOB_ID.replace('-', '')}",
            "webhook_state": "pending",
            "message": "The webhook is sent again.",
        }
    },
    "JobsDeleteRequest": {"Two jobs": {"job_ids": [JOB_ID, RETRY_ID]}},
    "JobsDeleteResponse": {
        "One was there": {"deleted_count": 1, "job_ids": [JOB_ID], "message": "1 job deleted."}
    },
    "HealthResponse": {"Healthy": HEALTHY},
    "AliveResponse": {"Alive": {"status": "alive"}},
}
"""Bodies of requests and of successful answers: struct, summary, value."""


def webhook_example(status: str) -> dict[str, Any]:
    """Show the webhook of a job that ended as `status`."""
    ended: dict[str, Any] = {"result": RESULT, "error_message": None, "error_code": None}
    if status != "completed":
        ended["result"] = None
    if status == "failed":
        ended["error_message"] = FAILED_SUMMARY["error_message"]
        ended["error_code"] = FAILED_SUMMARY["error_code"]
    return {
        "event": f"workflow.{status}",
        "job_id": JOB_ID,
        "workflow_name": "emergency_contacts",
        "status": status,
        **ASKED_BY,
        **ended,
        **TIMES,
        "usage": USAGE,
    }
