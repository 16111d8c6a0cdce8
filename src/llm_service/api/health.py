"""GET /health, /health/live, /health/ready and /metrics: open routes, without secret and without detail."""

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from litestar import MediaType, Request, Response, get
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from llm_service.api.services import Services
from llm_service.api.shared import Shared
from llm_service.errors import ServiceUnavailable
from llm_service.jobs.store import upkeep
from llm_service.jobs.store.upkeep import Vitals
from llm_service.metrics import QUEUE_DEPTH, QUEUE_OLDEST, WORKERS

Up = Literal["up", "down"]


class HealthResponse(msgspec.Struct, frozen=True, kw_only=True):
    """healthy; degraded: jobs are accepted but wait (no Redis or no worker); unhealthy: PostgreSQL is away."""

    status: Literal["healthy", "degraded", "unhealthy"]
    database: Up
    redis: Up
    workers: int
    timestamp: datetime


class AliveResponse(msgspec.Struct, frozen=True):
    status: Literal["alive"] = "alive"


class Pulse:
    """What the open routes tell, found out once at a time: strangers may ask as often as they like."""

    def __init__(self, services: Services) -> None:
        self.health = Shared(lambda: _health(services))
        self.metrics = Shared(lambda: _metrics(services))


def pulse_of(request: Request[Any, Any, Any]) -> Pulse:
    pulse: Pulse = request.app.state.pulse
    return pulse


async def _vitals(services: Services) -> Vitals | None:
    try:
        return await upkeep.vitals(services.health_database)
    except ServiceUnavailable:
        return None


async def _health(services: Services) -> HealthResponse:
    vitals = await _vitals(services)
    redis: Up = "up" if await services.queue.ping() else "down"
    if vitals is None:
        # The database's clock is out of reach with it.
        return HealthResponse(
            status="unhealthy", database="down", redis=redis, workers=0, timestamp=datetime.now(UTC)
        )
    whole = redis == "up" and vitals.workers > 0
    return HealthResponse(
        status="healthy" if whole else "degraded",
        database="up",
        redis=redis,
        workers=vitals.workers,
        timestamp=vitals.now,
    )


@get(
    "/health",
    tags=["Health"],
    summary="How the service is; 503 when it can accept nothing",
    raises=[],
    security=[],
)
async def health(request: Request[Any, Any, Any]) -> Response[HealthResponse]:
    found = await pulse_of(request).health.get()
    return Response(found, status_code=503 if found.status == "unhealthy" else 200)


@get("/health/live", tags=["Health"], summary="The process answers", raises=[], security=[])
async def live() -> AliveResponse:
    return AliveResponse()


@get("/health/ready", tags=["Health"], summary="Whether to send traffic here", raises=[], security=[])
async def ready(request: Request[Any, Any, Any]) -> Response[HealthResponse]:
    """Ready while jobs can be accepted: also without Redis, for a job is accepted by its row. Not while leaving."""
    found = await pulse_of(request).health.get()
    ready = found.status != "unhealthy" and not request.app.state.leaving
    return Response(found, status_code=200 if ready else 503)


@get(
    "/metrics",
    tags=["Health"],
    summary="Metrics for Prometheus",
    media_type=MediaType.TEXT,
    raises=[],
    security=[],
)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    return Response(await pulse_of(request).metrics.get(), media_type=CONTENT_TYPE_LATEST)


async def _metrics(services: Services) -> bytes:
    if (vitals := await _vitals(services)) is not None:
        WORKERS.set(vitals.workers)
        QUEUE_DEPTH.labels("pending").set(vitals.pending)
        QUEUE_DEPTH.labels("processing").set(vitals.processing)
        QUEUE_OLDEST.set(vitals.oldest_wait_s or 0)
    return generate_latest(REGISTRY)
