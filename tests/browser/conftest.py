"""The page in the system's Chromium, on a month of seeded jobs. `make test-browser` runs these tests."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, sync_playwright
from tests.browser.seed import seed
from tests.browser.server import served
from tests.conftest import SECRET, TEMPLATE, run_sql, with_name

from llm_service.settings import load_settings

PASSWORD = "an admin password of tests"
READER_PASSWORD = "a reader password of tests"
RUNNER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.browser)


class Site(NamedTuple):
    url: str
    database_url: str

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Rows of a statement run beside the service, in a thread: Playwright's loop holds this one."""
        found: list[Any] = []

        async def run() -> None:
            connection = await asyncpg.connect(self.database_url)
            found.extend(await connection.fetch(statement, *values))
            await connection.close()

        in_thread(lambda: asyncio.run(run()))
        return found


def in_thread(work: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed on below
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def _site(server_url: str, redis_url: str, name: str, rows: int) -> Iterator[Site]:
    drop = f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"
    in_thread(lambda: run_sql(server_url, drop, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
    url = with_name(server_url, name)
    if rows:
        in_thread(lambda: asyncio.run(seed(url, rows=rows)))
    settings = load_settings(
        {
            "DATABASE_URL": url, "REDIS_URL": redis_url, "LLM_SERVICE_API_SECRET": SECRET, "LLM_SERVICE_MODEL": "offline",
            "LLM_SERVICE_ADMIN_PASSWORD": PASSWORD, "LLM_SERVICE_ADMIN_READER_PASSWORD": READER_PASSWORD,
        }
    )  # fmt: skip
    with served(settings) as address:
        yield Site(address, url)
    in_thread(lambda: run_sql(server_url, drop))


@pytest.fixture(scope="session")
def month(server_url: str) -> Iterator[Site]:
    """A service with some 4,000 jobs of 30 days."""
    yield from _site(server_url, os.environ["TEST_REDIS_URL"], f"llm_test_browser_{RUNNER}", 4_000)


@pytest.fixture(scope="session")
def nothing(server_url: str) -> Iterator[Site]:
    """A service without a job."""
    yield from _site(server_url, os.environ["TEST_REDIS_URL"], f"llm_test_browser_empty_{RUNNER}", 0)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


class Visitor:
    """Opens pages as somebody who is logged in, and notes what the browser complains about."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._states: dict[str, Any] = {}
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []

    def open(
        self,
        site: Site,
        path: str,
        *,
        width: int = 1280,
        height: int = 900,
        theme: Any = "light",
        **options: Any,
    ) -> Page:
        context = self._browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,
            storage_state=self._states.get(site.url),
            **options,
        )
        self._contexts.append(context)
        page = context.new_page()
        page.on(
            "console",
            lambda message: (
                self.complaints.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._note_dialog)
        page.goto(site.url + path)
        if page.locator("#password").count() and not path.startswith("/admin?stay"):
            page.fill("#password", PASSWORD)
            page.keyboard.press("Enter")
            page.wait_for_selector("#jobs, #job, .alone:not(.login)")
            self._states[site.url] = context.storage_state()
        return page

    def _note_dialog(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def close(self) -> None:
        for context in self._contexts:
            context.close()
        self._contexts.clear()


@pytest.fixture(scope="session")
def everyone(browser: Browser) -> Visitor:
    return Visitor(browser)


@pytest.fixture
def visitor(everyone: Visitor) -> Iterator[Visitor]:
    everyone.complaints.clear()
    yield everyone
    everyone.close()


@pytest.fixture
def picture() -> Callable[[Page, str], None]:
    """Keeps a screenshot in the directory that SCREENSHOTS names; without it, none."""
    folder = os.environ.get("SCREENSHOTS")

    def take(page: Page, name: str) -> None:
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=f"{folder}/{name}.png")

    return take
