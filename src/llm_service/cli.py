"""The command `llm-service`: api, worker, migrate, rollback, run. Thin: each command imports what it runs."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import click

from llm_service.errors import SettingsInvalid

P = ParamSpec("P")


def naming_wrong_settings(command: Callable[P, None]) -> Callable[P, None]:
    """A wrong or missing setting is one line that names it, and exit code 2."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except SettingsInvalid as error:
            click.echo(error.message, err=True)
            sys.exit(2)

    return guarded


@click.group(help="Durable LLM workflows over HTTP.")
@click.version_option(package_name="llm-service")
def main() -> None: ...


@main.command(help="Serve HTTP on HOST:PORT.")
@naming_wrong_settings
def api() -> None:
    from llm_service.logs import configure_logs
    from llm_service.settings import load_settings

    settings = load_settings(os.environ)
    import uvicorn

    from llm_service import memory
    from llm_service.api.wire import BoundedProtocol
    from llm_service.app import create_app

    configure_logs(settings.log_level, settings.log_format)
    app = create_app(settings)
    memory.settle()
    # uvicorn raises the signal that stopped it again when all is closed: a stop that was asked for is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        # More than one process needs to make its own application; one serves this.
        "llm_service.app:app_from_environment" if settings.api_processes > 1 else app,
        factory=settings.api_processes > 1,
        workers=settings.api_processes if settings.api_processes > 1 else None,
        host=settings.host,
        port=settings.port,
        http=BoundedProtocol,
        loop="uvloop",
        log_config=None,
        access_log=False,
        server_header=False,
        # From these alone the scheme and the caller's address are taken as they say.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=int(settings.shutdown_grace),
    )


@main.command(help="Run jobs and deliver webhooks until SIGTERM.")
@naming_wrong_settings
def worker() -> None:
    from llm_service.logs import configure_logs
    from llm_service.settings import load_settings

    settings = load_settings(os.environ)
    import uvloop

    from llm_service.worker import serve

    configure_logs(settings.log_level, settings.log_format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


@main.command(help="Bring the database at DATABASE_URL to the newest schema.")
@naming_wrong_settings
def migrate() -> None:
    from llm_service.migrations import upgrade

    upgrade(_database_url())


@main.command(help="Take the newest migration back.")
@naming_wrong_settings
def rollback() -> None:
    from llm_service.migrations import downgrade_one

    downgrade_one(_database_url())


@main.command(
    help="Start everything: PostgreSQL and Valkey where no URL is given, migrations, API, one worker."
)
@naming_wrong_settings
def run() -> None:
    from llm_service.everything import run_everything

    sys.exit(run_everything(os.environ))


def _database_url() -> str:
    from llm_service.settings import async_database_url

    if not (given := os.environ.get("DATABASE_URL", "").strip()):
        raise SettingsInvalid("DATABASE_URL is not set: it names the PostgreSQL to migrate.")
    return async_database_url(given)
