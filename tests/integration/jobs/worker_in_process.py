"""A worker in this process and event loop, on the runner's own database and Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from llm_service.runtime import Runtime
from llm_service.settings import Settings
from llm_service.worker import WorkerProcess
from llm_service.workflows import WORKFLOWS
from llm_service.workflows.base import Workflow


@asynccontextmanager
async def working(
    settings: Settings, *extra: Workflow[Any, Any], grace_s: float = 5.0
) -> AsyncIterator[WorkerProcess]:
    """A worker that runs the built-in workflows and `extra` ones; leaving is what SIGTERM does."""
    runtime = Runtime(settings, WORKFLOWS | {workflow.name: workflow for workflow in extra})
    await runtime.open()
    process = WorkerProcess(runtime)
    try:
        yield process
    finally:
        await process.drain(grace_s)
        await process.close()
