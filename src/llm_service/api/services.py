"""What the handlers of one API process work with."""

from typing import Any

import msgspec
from litestar import Request

from llm_service.db import Database
from llm_service.jobs.crowds import Crowds
from llm_service.jobs.limits import SubmitLimits
from llm_service.jobs.queue import JobQueue
from llm_service.jobs.submit import Desk
from llm_service.settings import Settings


class Services(msgspec.Struct, frozen=True, kw_only=True):
    settings: Settings
    database: Database
    health_database: Database
    queue: JobQueue
    desk: Desk
    limits: SubmitLimits
    crowds: Crowds


def services_of(request: Request[Any, Any, Any]) -> Services:
    services: Services = request.app.state.services
    return services
