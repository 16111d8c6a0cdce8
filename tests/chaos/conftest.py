"""Marks everything here `chaos`, and gives each test servers to break."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.stack import Servers, Stack, open_servers

HERE = Path(__file__).parent
Start = Callable[..., Awaitable[Stack]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.chaos)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with open_servers() as opened:
        yield opened


@pytest.fixture
async def start(servers: Servers, tmp_path: Path) -> AsyncIterator[Start]:
    """Start a stack with the options of `Stack`; the test's end stops it."""
    async with AsyncExitStack() as undo:

        async def begin(**options: Any) -> Stack:
            return await undo.enter_async_context(Stack(servers, tmp_path, **options))

        yield begin
