"""Wires the HTTP process."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, Router
from litestar.datastructures import State

from llm_service import memory
from llm_service.admin.failures import page_at_the_door
from llm_service.admin.guard import AdminGuard
from llm_service.admin.health import HealthLook
from llm_service.admin.html import Pages
from llm_service.admin.model import Role
from llm_service.admin.polling import Looks
from llm_service.admin.routes import admin_router
from llm_service.admin.sessions import Sessions
from llm_service.api import health, job, jobs, workflow
from llm_service.api.auth import GUARDED, SecretCheck
from llm_service.api.body import MAX_BODY
from llm_service.api.edge import Edge
from llm_service.api.errors import EXCEPTION_HANDLERS
from llm_service.api.leaving import leave_in_order
from llm_service.api.openapi import openapi_config
from llm_service.api.services import Services
from llm_service.db import API_LIMITS, HEALTH_LIMITS, Database
from llm_service.jobs.crowds import Crowds
from llm_service.jobs.limits import SubmitLimits
from llm_service.jobs.queue import JobQueue, connect
from llm_service.jobs.secrets import SecretBox, check_service_secrets
from llm_service.jobs.submit import Desk
from llm_service.llm import check_model
from llm_service.logs import configure_logs, get_logger
from llm_service.settings import Settings, load_settings
from llm_service.startup import look_around
from llm_service.workflows import load_workflows

log = get_logger(__name__)


def create_app(settings: Settings) -> Litestar:
    """The ASGI application. Connects to nothing until it is used; a wrong setting is refused here."""
    check_model(settings)
    check_service_secrets(settings.webhook_secret)
    services = open_services(settings)
    pages = Pages()

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        leave_in_order(app.state, settings.leave_delay)
        await look_around(services.database, services.queue)
        try:
            yield
        finally:
            await close_services(services)

    app = Litestar(
        route_handlers=[
            Router(
                path=GUARDED,
                route_handlers=[
                    workflow.submit_workflow,
                    workflow.validate_workflow,
                    workflow.list_workflows,
                    jobs.list_jobs,
                    jobs.delete_jobs,
                    job.get_job,
                    job.cancel_job,
                    job.cancel_workflow,
                    job.retry_job,
                    job.redeliver_webhook,
                ],
            ),
            health.health,
            health.live,
            health.ready,
            health.metrics,
            admin_router(),
        ],
        state=State(
            {
                "services": services,
                "pages": pages,
                "looks": Looks(),
                "health": HealthLook(services),
                "pulse": health.Pulse(services),
            }
        ),
        lifespan=[lifespan],
        exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=openapi_config(),
        request_max_body_size=MAX_BODY,
        logging_config=None,
    )
    # Around Litestar, not within it: its own middleware does not see what no route answers.
    admin = AdminGuard(app.asgi_handler, _sessions(services), page_at_the_door(pages))
    app.asgi_handler = Edge(admin, SecretCheck(settings.api_secret))
    return app


def open_services(settings: Settings) -> Services:
    database = Database(settings.database_url, API_LIMITS, name="api")
    queue = JobQueue(connect(settings.redis_url), head_start_s=settings.priority_head_start)
    return Services(
        settings=settings,
        database=database,
        health_database=Database(settings.database_url, HEALTH_LIMITS, name="health"),
        queue=queue,
        desk=Desk(
            database=database,
            queue=queue,
            workflows=load_workflows(),
            secrets=SecretBox(settings.encryption_keys),
            allowed_hosts=settings.webhook_allowed_hosts,
            max_attempts=settings.max_attempts,
        ),
        limits=SubmitLimits(database, queue, settings),
        crowds=Crowds(),
    )


def _sessions(services: Services) -> Sessions | None:
    """None without an admin password: then there is nothing at /admin."""
    settings = services.settings
    given = {Role.ADMIN: settings.admin_password, Role.READER: settings.admin_reader_password}
    passwords = {role: password for role, password in given.items() if password is not None}
    return Sessions(services.database, passwords) if Role.ADMIN in passwords else None


async def close_services(services: Services) -> None:
    await services.desk.close()
    await asyncio.gather(services.queue.close(), services.database.close(), services.health_database.close())


def app_from_environment() -> Litestar:
    """For `uvicorn --factory llm_service.app:app_from_environment`."""
    settings = load_settings(os.environ)
    configure_logs(settings.log_level, settings.log_format)
    app = create_app(settings)
    memory.settle()
    return app
