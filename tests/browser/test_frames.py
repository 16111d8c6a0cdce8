"""A page of somebody else puts the queue page into a frame, to have an admin click what is not seen. Ids: docs/security.md."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Page
from tests.browser.conftest import Site, Visitor

BLOCKED = "chrome-error://chromewebdata/"
"""Where Chromium leaves a frame whose page may not be shown in it."""


class Elsewhere(BaseHTTPRequestHandler):
    """Another origin: every address of it frames what its query string names, `/inside` is a page without more."""

    def do_GET(self) -> None:
        path, _, framed = self.path.partition("?")
        body = "inside" if path == "/inside" else f'<p>outside<iframe src="{framed}"></iframe>'
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def framed(page: Page, outside: str, inside: str) -> tuple[str, str]:
    """Where the frame ended, and what it shows."""
    page.goto(f"{outside}/?{inside}")
    assert "outside" in page.inner_text("p")
    [_, frame] = page.frames
    frame.wait_for_load_state()
    return frame.url, frame.inner_text("body")


def test_s24_another_site_can_frame_nothing_of_ours(month: Site, visitor: Visitor, elsewhere: str) -> None:
    """With a session, whose cookie comes along: the other site differs by its port alone."""
    page = visitor.open(month, "/admin/queue")
    assert framed(page, elsewhere, f"{elsewhere}/inside") == (f"{elsewhere}/inside", "inside")
    assert visitor.complaints == []
    paths = ("/admin", "/admin/queue", "/admin/nothing", "/health", "/api/v1/jobs", "/schema/openapi.json")
    for path in paths:
        where, shown = framed(page, elsewhere, month.url + path)
        assert where == BLOCKED, path
        assert "Failed" not in shown
    assert len([text for text in visitor.complaints if "frame-ancestors 'none'" in text]) == len(paths)
    visitor.complaints.clear()
