"""The service with an admin password, and a browser in front of it that is logged in or is not."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.in_process import serving

from llm_service.settings import Settings, load_settings

PASSWORD = "correct-horse-battery-9"
BASE = "http://127.0.0.1:8000"
FETCH = {"X-Requested-With": "fetch", "Origin": BASE, "Sec-Fetch-Site": "same-origin"}


def csrf_in(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([0-9a-f]{64})"', page)
    assert found is not None, page[:2000]
    return found[1]


async def log_in(browser: httpx.AsyncClient, password: str = PASSWORD, **fields: str) -> httpx.Response:
    """As a browser does: fetch the form, send it with the cookie that came along."""
    form = await browser.get("/admin")
    data = {"password": password, "csrf_token": csrf_in(form.text), **fields}
    return await browser.post(
        "/admin", data=data, headers={"Sec-Fetch-Site": "same-origin", "Origin": "null"}
    )


class Browser:
    """Logged in; sends what the page's own script sends."""

    def __init__(self, client: httpx.AsyncClient, csrf_token: str) -> None:
        self.client = client
        self.headers = FETCH | {"X-CSRF-Token": csrf_token}

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return await self.client.post(path, json=body, headers=self.headers | headers)


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    return load_settings(environment | {"LLM_SERVICE_ADMIN_PASSWORD": PASSWORD})


@pytest.fixture
async def browser(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Not logged in."""
    async with serving(settings) as opened:
        opened.base_url = httpx.URL(BASE)
        yield opened


@pytest.fixture
async def admin(browser: httpx.AsyncClient) -> Browser:
    answer = await log_in(browser)
    assert answer.status_code == 303, answer.text
    page = await browser.get("/admin/queue")
    assert page.status_code == 200, page.text[:2000]
    return Browser(browser, csrf_in(page.text))
