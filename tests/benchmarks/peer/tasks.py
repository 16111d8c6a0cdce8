"""The peer's worker: Celery on Redis runs a workflow, stores its result and posts the signed webhook."""

import hashlib
import hmac
import os
import uuid
from datetime import datetime
from functools import cache
from typing import Any

import httpx
import orjson
from celery import Celery
from celery.signals import worker_process_init
from models import FINISHED, WorkflowJob, open_engine, utc_now
from sqlalchemy.orm import Session, sessionmaker, undefer

celery = Celery("peer", broker=os.environ["REDIS_URL"])
celery.conf.update(
    task_ignore_result=True,  # results are in PostgreSQL
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,  # Celery's own advice for long tasks
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "priority_steps": list(range(11)),
        "queue_order_strategy": "priority",
        "visibility_timeout": 3600,
    },
)

engine = open_engine()
new_session = sessionmaker(engine, expire_on_commit=False)


@worker_process_init.connect
def start_child(**_: Any) -> None:
    engine.dispose(close=False)  # a child must not share its parent's sockets


@cache
def client() -> httpx.Client:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    return httpx.Client(timeout=120, limits=limits, headers={"Content-Type": "application/json"})


def complete(asked: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    messages = [{"role": "system", "content": asked.get("system") or "Be brief."}]
    messages.append({"role": "user", "content": asked["prompt"]})
    answer = client().post(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions",
        headers={"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"},
        content=orjson.dumps({"model": "fake", "messages": messages}),
    )
    answer.raise_for_status()
    body = orjson.loads(answer.content)
    return {"text": body["choices"][0]["message"]["content"]}, body["usage"]


WORKFLOWS = {"completion": complete}


def post_webhook(job: WorkflowJob) -> None:
    body = orjson.dumps(
        {
            "event": f"workflow.{job.status}",
            "job_id": str(job.id),
            "workflow_name": job.workflow_name,
            "status": job.status,
            "user_id": str(job.user_id),
            "username": job.username,
            "action": job.action,
            "result": job.result,
            "error_message": job.error_message,
            "created_at": job.created_at,
            "started_at": job.started_at,
            "completed_at": job.completed_at,
            "duration_ms": job.duration_ms,
        }
    )
    digest = hmac.new((job.webhook_secret or "").encode(), body, hashlib.sha256).hexdigest()
    answer = client().post(
        job.webhook_url or "", content=body, headers={"X-Webhook-Signature": f"sha256={digest}"}, timeout=15
    )
    answer.raise_for_status()


def find_job(session: Session, job_id: str) -> WorkflowJob | None:
    payload = [undefer(WorkflowJob.input_data), undefer(WorkflowJob.result)]
    return session.get(WorkflowJob, uuid.UUID(job_id), options=payload)


@celery.task(name="deliver_webhook", bind=True, max_retries=8)
def deliver_webhook(self: Any, job_id: str) -> None:
    with new_session() as session:
        job = find_job(session, job_id)
        if job is None:
            return
        job.webhook_attempts += 1
        try:
            post_webhook(job)
        except httpx.HTTPError as error:
            job.webhook_status = "retrying"
            session.commit()
            raise self.retry(exc=error, countdown=5 * 3**self.request.retries) from error
        job.webhook_status = "delivered"
        session.commit()


@celery.task(name="run_workflow", bind=True, max_retries=3)
def run_workflow(self: Any, job_id: str) -> None:
    with new_session() as session:
        job = find_job(session, job_id)
        if job is None or job.status in FINISHED:
            return
        job.status, job.started_at = "processing", utc_now()
        job.attempts += 1
        session.commit()
        run, asked, started_at = WORKFLOWS[job.workflow_name], job.input_data, job.started_at
    result: dict[str, Any] | None = None
    usage: dict[str, int] = {}
    failure = None
    try:
        result, usage = run(asked)  # no session is open while the model thinks
    except httpx.HTTPError as error:
        if self.request.retries < self.max_retries:
            raise self.retry(exc=error, countdown=2**self.request.retries) from error
        failure = str(error)
    finish(job_id, started_at, result, usage, failure)


def finish(
    job_id: str,
    started_at: datetime,
    result: dict[str, Any] | None,
    usage: dict[str, int],
    failure: str | None,
) -> None:
    """Store the end, then tell the receiver: the first try inline, later ones as tasks."""
    with new_session() as session:
        job = find_job(session, job_id)
        if job is None:
            return
        job.status, job.result, job.error_message = "failed" if failure else "completed", result, failure
        job.prompt_tokens, job.completion_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        job.completed_at = utc_now()
        job.duration_ms = int((job.completed_at - started_at).total_seconds() * 1000)
        job.webhook_status = "pending" if job.webhook_url else None
        session.commit()
        if not job.webhook_url:
            return
        job.webhook_attempts += 1
        try:
            post_webhook(job)
        except httpx.HTTPError:
            job.webhook_status = "retrying"
            deliver_webhook.apply_async(args=[job_id], countdown=5)
        else:
            job.webhook_status = "delivered"
        session.commit()
