"""The secret, and what every answer carries: an id, the security headers, the one envelope, nothing of the secret."""

import hashlib
import hmac
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from litestar import Litestar, get
from tests.conftest import AUTH, SECRET
from tests.in_process import serving

from llm_service.api.auth import (
    GUARDED,
    MOST_PEERS,
    MOST_WRONG,
    WINDOW_S,
    SecretCheck,
    WrongTries,
    is_guarded,
    peer_of,
)
from llm_service.app import create_app
from llm_service.metrics import REQUESTS
from llm_service.settings import Secret, Settings

OTHER_SECRET = "another-secret-9876543210"
NOBODY = "11111111-1111-1111-1111-111111111111"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE"]
OPEN = ["/health", "/health/live", "/health/ready", "/metrics", "/schema/openapi.json"]
SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


def guarded_routes(app: Litestar) -> list[str]:
    """Every path below the guarded prefix, with an id in place of each parameter."""
    paths = {re.sub(r"\{[^}]*\}", NOBODY, route.path_format) for route in app.routes}
    return sorted(path for path in paths if path.startswith(GUARDED))


@pytest.fixture
def routes(settings: Settings) -> list[str]:
    found = guarded_routes(create_app(settings))
    assert {"/api/v1/workflow", "/api/v1/jobs", f"/api/v1/jobs/{NOBODY}"} <= set(found)
    return found


class ManyPeers(httpx.ASGITransport):
    """Each request comes from an address of its own: none has tried too often."""

    numbers = itertools.count()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.client = (f"peer-{next(self.numbers)}", 1)
        return await super().handle_async_request(request)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings, ManyPeers) as opened:
        yield opened


@pytest.fixture(autouse=True)
def silence(client: httpx.AsyncClient) -> Iterator[None]:
    """No answer of any test holds a secret."""
    answers: list[httpx.Response] = []

    async def keep(answer: httpx.Response) -> None:
        await answer.aread()
        answers.append(answer)

    client.event_hooks["response"] = [keep]
    yield
    for answer in answers:
        shown = repr(answer.headers) + answer.text
        assert SECRET not in shown
        assert OTHER_SECRET not in shown


# --- without the secret -----------------------------------------------------------------------------------


async def refused_body(client: httpx.AsyncClient, method: str, path: str, **more: Any) -> bytes:
    answer = await client.request(method, path, **more)
    assert answer.status_code == 401, f"{method} {path} {more}: {answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/json"
    assert SECURITY.items() <= answer.headers.items()
    assert answer.headers["x-request-id"]
    return answer.content


async def test_s01_every_route_and_method_is_refused_alike(
    client: httpx.AsyncClient, routes: list[str]
) -> None:
    bodies = set()
    for path in routes:
        for method in METHODS:
            bodies.add(await refused_body(client, method, path))
            bodies.add(
                await refused_body(client, method, path, headers={"X-API-Secret": "wrong-secret-0123456"})
            )
    bodies.discard(b"")  # of HEAD
    assert len(bodies) == 1
    assert msgspec.json.decode(bodies.pop()) == {
        "detail": {"error": "InvalidAPISecret", "message": "The header X-API-Secret is missing or wrong."}
    }


async def test_s01_no_spelling_of_a_path_opens_a_door(client: httpx.AsyncClient, routes: list[str]) -> None:
    bodies = set()
    for path in [*routes, GUARDED, "/api/v1/no/such/route"]:
        spellings = [
            path + "/",
            path + "//",
            "/" + path,
            path.replace("/", "//"),
            path.upper(),
            path.replace("api", "aPi"),
            path.replace("/api", "/./api"),
            path.replace("v1", "%76%31"),
            path.replace("/v1", "%2Fv1"),
            path + "?X-API-Secret=" + SECRET,
            path + "?x=1&api_secret=" + SECRET,
        ]
        for spelling in spellings:
            for method in ("GET", "POST", "OPTIONS"):
                bodies.add(await refused_body(client, method, "http://test" + spelling))
    assert len(bodies) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1",
        "/api/v1/",
        "//api///v1//jobs",
        "/API/V1/jobs",
        "/./api/v1/x",
        "/api/./v1/x",
        "/api/v1/../v1/x",
    ],
)
def test_s01_a_guarded_path_is_known_in_any_spelling(path: str) -> None:
    assert is_guarded(path)


@pytest.mark.parametrize("path", ["/", "", "/health", "/api", "/api/v10", "/api/v1x/jobs", "/x/api/v1/jobs"])
def test_other_paths_are_open(path: str) -> None:
    assert not is_guarded(path)


NOT_THE_SECRET: list[list[str | bytes]] = [
    [""],
    [" " + SECRET],
    [SECRET + " "],
    [SECRET + "\t"],
    [SECRET.upper()],
    [SECRET[:-1]],
    [SECRET + "x"],
    [SECRET + "\x00"],
    ["x" * 10_240],
    ["žluťoučký kůň".encode()],
    [b"\xff\xfe" * 20],
    [SECRET, SECRET],
    [SECRET, "wrong"],
    ["wrong", SECRET],
    [f"{SECRET},{OTHER_SECRET}"],
    [f"Bearer {SECRET}"],
]


async def test_s03_a_header_that_is_not_exactly_the_secret_is_refused(client: httpx.AsyncClient) -> None:
    missing = await refused_body(client, "GET", "/api/v1/jobs")
    for values in NOT_THE_SECRET:
        headers = [("X-API-Secret", value) for value in values]
        assert await refused_body(client, "GET", "/api/v1/jobs", headers=headers) == missing


async def test_s07_another_header_is_no_secret(client: httpx.AsyncClient) -> None:
    for name in ("Authorization", "X-API-Key", "X_API_Secret", "X-API-Secret2"):
        await refused_body(client, "GET", "/api/v1/jobs", headers={name: SECRET})
    await refused_body(client, "GET", "/api/v1/jobs", headers={"Cookie": f"X-API-Secret={SECRET}"})


async def test_a_refused_request_reads_no_body(client: httpx.AsyncClient) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"{}"

    await refused_body(client, "POST", "/api/v1/workflow", content=body())
    assert read == 0


# --- with it ----------------------------------------------------------------------------------------------


async def test_s05_every_configured_secret_works_and_no_other(settings: Settings, database: Any) -> None:
    rotating = msgspec.structs.replace(settings, api_secret=(Secret(OTHER_SECRET), Secret(SECRET)))
    async with serving(rotating) as client:
        for secret in (SECRET, OTHER_SECRET):
            for name in ("X-API-Secret", "x-api-secret"):
                answer = await client.get("/api/v1/jobs", headers={name: secret})
                assert answer.status_code == 200
        await refused_body(
            client, "GET", "/api/v1/jobs", headers={"X-API-Secret": f"{OTHER_SECRET},{SECRET}"}
        )
    async with serving(msgspec.structs.replace(settings, api_secret=(Secret(OTHER_SECRET),))) as client:
        await refused_body(client, "GET", "/api/v1/jobs", headers={"X-API-Secret": SECRET})


async def test_a_secret_beyond_ascii_is_compared_as_utf8(settings: Settings) -> None:
    secret = "žluťoučký kůň úpěl"
    async with serving(msgspec.structs.replace(settings, api_secret=(Secret(secret),))) as client:
        answer = await client.get("/api/v1/workflows", headers=[(b"X-API-Secret", secret.encode())])
        assert answer.status_code == 200
        await refused_body(
            client, "GET", "/api/v1/workflows", headers={"X-API-Secret": secret.encode("utf-16")}
        )


async def test_an_open_route_needs_no_secret(client: httpx.AsyncClient) -> None:
    for path in OPEN:
        for headers in ({}, {"X-API-Secret": "wrong"}, AUTH):
            answer = await client.get(path, headers=headers)
            assert answer.status_code == 200, answer.text
            assert SECURITY.items() <= answer.headers.items()


# --- what every answer carries ----------------------------------------------------------------------------


async def test_a_sane_request_id_is_echoed(client: httpx.AsyncClient) -> None:
    for sent in ("a", "0198a4f0c2d17b3e8f5a6d7c9b0e1f23", "trace-1_2.3", "x" * 64):
        for path in ("/health/live", "/api/v1/jobs", "/nothing"):
            answer = await client.get(path, headers={"X-Request-ID": sent})
            assert answer.headers.get_list("x-request-id") == [sent]


async def test_s46_another_request_id_is_replaced(client: httpx.AsyncClient) -> None:
    made = set()
    odd = [
        "",
        "x" * 65,
        "a b",
        "a\nb",
        "a\r\nSet-Cookie: x",
        "é",
        "<script>",
        "a/b",
        "\x00",
        "a\n",
        SECRET + "!",
    ]
    for sent in odd:
        answer = await client.get("/health/live", headers=[(b"X-Request-ID", sent.encode())])
        [request_id] = answer.headers.get_list("x-request-id")
        assert re.fullmatch("[0-9a-f]{32}", request_id), sent
        made.add(request_id)
    made.add((await client.get("/health/live")).headers["x-request-id"])
    assert len(made) == len(odd) + 1


async def test_s23_every_answer_has_the_security_headers_once(client: httpx.AsyncClient) -> None:
    asked = [
        ("GET", "/health", {}, 200),
        ("GET", "/api/v1/jobs", AUTH, 200),
        ("GET", "/api/v1/jobs", {}, 401),
        ("GET", "/nothing", {}, 404),
        ("GET", "/api/v1/nothing", AUTH, 404),
        ("PUT", "/api/v1/workflow", AUTH, 405),
        ("POST", "/api/v1/workflow", AUTH, 400),
        ("POST", "/api/v1/workflow", AUTH | {"Content-Type": "text/plain"}, 415),
        ("GET", "/api/v1/jobs?limit=x", AUTH, 422),
    ]
    for method, path, headers, status in asked:
        content = b"{" if method == "POST" else None
        answer = await client.request(method, path, headers=headers, content=content)
        assert answer.status_code == status, answer.text
        for name, value in SECURITY.items():
            assert answer.headers.get_list(name) == [value], (path, name)
        assert len(answer.headers.get_list("x-request-id")) == 1
        assert "server" not in answer.headers


SCHEMA = ("/schema/nothing", "/schema/openapi.yaml", "/schema/swagger", "/schema/<script>", "/schema/x/y")


async def test_what_is_not_there_is_404_in_the_envelope(client: httpx.AsyncClient) -> None:
    for path in ("/", "/nothing", "/api/v1", "/api/v1/nothing", "/api/v1/jobs/x/y/z", "/health/x", *SCHEMA):
        answer = await client.get(path, headers=AUTH)
        assert answer.status_code == 404, path
        assert answer.json() == {
            "detail": {"error": "RouteNotFound", "message": "There is nothing at this address."}
        }


async def test_a_wrong_method_is_405_and_says_which_are_right(
    client: httpx.AsyncClient, routes: list[str]
) -> None:
    for path in [*routes, "/health", "/metrics"]:
        answer = await client.request("TRACE", path, headers=AUTH)
        assert answer.status_code == 405, path
        detail = answer.json()["detail"]
        assert (detail["error"], detail["method"]) == ("MethodNotAllowed", "TRACE")
        allowed = {method.strip() for method in answer.headers["Allow"].split(",")}
        assert allowed & {"GET", "POST", "DELETE"}
        assert allowed < {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


async def test_s51_a_bug_is_500_with_the_id_that_leads_to_it(settings: Settings) -> None:
    @get("/api/v1/broken")
    async def broken() -> None:
        raise RuntimeError("SELECT hunter2canary FROM secrets")

    app = create_app(settings)
    app.register(broken)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/api/v1/broken", headers=AUTH | {"X-Request-ID": "r-17"})
        assert answer.status_code == 500
        detail = answer.json()["detail"]
        assert (detail["error"], detail["request_id"]) == ("InternalError", "r-17")
        assert "canary" not in answer.text
        assert "Traceback" not in answer.text
        assert SECURITY.items() <= answer.headers.items()
        assert answer.headers["x-request-id"] == "r-17"
        await refused_body(client, "GET", "/api/v1/broken")


async def test_s49_a_path_without_end_is_logged_by_its_beginning(client: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as lines:
        await client.get("/" + "a" * 50_000)
    [noted] = [line for line in lines if line["event"] == "request"]
    assert noted["path"] == "/" + "a" * 299


async def test_what_is_counted_has_few_names_whatever_a_stranger_sends(client: httpx.AsyncClient) -> None:
    def counted() -> set[tuple[str, str]]:
        samples = next(iter(REQUESTS.collect())).samples
        return {(sample.labels["method"], sample.labels["route"]) for sample in samples}

    await client.request("MADE-UP", "/nothing")
    before = counted()
    for number in range(20):
        await client.request(f"MADE-UP-{number}", f"/nothing/{number}?{number}", headers={f"X-{number}": "x"})
    assert counted() == before
    assert {method for method, _ in before} <= {
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "(other)",
    }


# --- 20 wrong ones a minute -------------------------------------------------------------------------------


async def test_s06_of_one_peer_20_wrong_secrets_a_minute_are_401_and_further_ones_429(
    settings: Settings,
) -> None:
    app = create_app(settings)
    statuses: dict[str, list[int]] = {}
    for peer in ("192.0.2.1", "192.0.2.2"):
        transport = httpx.ASGITransport(app=app, client=(peer, 1))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = [
                await client.get(
                    "/api/v1/workflows",
                    # An address that the caller chooses counts for nothing.
                    headers={"X-API-Secret": f"wrong-{number}", "X-Forwarded-For": f"198.51.100.{number}"},
                )
                for number in range(23)
            ]
            statuses[peer] = [answer.status_code for answer in answers]
            assert answers[-1].json()["detail"]["error"] == "TooManyRequests"
            assert 1 <= int(answers[-1].headers["Retry-After"]) <= WINDOW_S
            assert (await client.get("/api/v1/workflows")).status_code == 401, "no secret is no try"
            assert (await client.get("/api/v1/workflows", headers=AUTH)).status_code == 200, (
                "a right one passes"
            )
    assert statuses == {peer: [401] * MOST_WRONG + [429] * 3 for peer in ("192.0.2.1", "192.0.2.2")}


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::", "2001:db8:1:2::"),
        ("2001:db8:1:3::6", "2001:db8:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("unix:/run/api.sock", "unix:/run/api.sock"),
    ],
)
def test_s06_one_peer_is_an_address_or_a_network_of_64_bits(address: str, peer: str) -> None:
    """Whoever has one address of IPv6 has 2^64 of them."""
    assert peer_of(address) == peer


async def test_s06_another_address_of_the_same_network_is_no_other_peer(settings: Settings) -> None:
    app = create_app(settings)
    statuses = []
    for number in range(MOST_WRONG + 2):
        transport = httpx.ASGITransport(app=app, client=(f"2001:db8::{number:x}", 1))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.get("/api/v1/workflows", headers={"X-API-Secret": "wrong"})
            statuses.append(answer.status_code)
    assert statuses == [401] * MOST_WRONG + [429] * 2


def test_s06_a_minute_later_there_are_20_more() -> None:
    moment = 1000.0
    tries = WrongTries(lambda: moment)
    assert [tries.note("a") for _ in range(MOST_WRONG + 1)] == [0.0] * MOST_WRONG + [WINDOW_S]
    moment += 59.5
    assert tries.note("a") == 0.5
    moment += 0.5
    assert [tries.note("a") for _ in range(MOST_WRONG + 1)] == [0.0] * MOST_WRONG + [WINDOW_S]


def test_s06_what_is_kept_of_peers_is_bounded() -> None:
    tries = WrongTries(lambda: 0.0)
    for number in range(MOST_PEERS + 50):
        tries.note(str(number))
    assert len(tries._peers) == MOST_PEERS


def test_s04_every_secret_is_compared_and_by_compare_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    digest = hmac.compare_digest

    def note(sent: bytes, ours: bytes) -> bool:
        compared.append((sent, ours))
        return digest(sent, ours)

    monkeypatch.setattr(hmac, "compare_digest", note)
    check = SecretCheck(
        [Secret("first-secret-0123"), Secret("second-secret-012"), Secret("third-secret-0123")]
    )
    for sent in (b"first-secret-0123", b"third-secret-0123", b"wrong"):
        compared.clear()
        check.client([sent])
        assert [ours for _, ours in compared] == [
            b"first-secret-0123",
            b"second-secret-012",
            b"third-secret-0123",
        ]


def test_s05_the_log_says_which_secret_was_used_by_the_start_of_its_hash() -> None:
    check = SecretCheck([Secret(SECRET), Secret(OTHER_SECRET)])
    named = [check.client([secret.encode()]) for secret in (SECRET, OTHER_SECRET)]
    assert named == [hashlib.sha256(secret.encode()).hexdigest()[:8] for secret in (SECRET, OTHER_SECRET)]


async def test_s05_each_request_logs_its_client(client: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as lines:
        await client.get("/api/v1/workflows", headers=AUTH)
        await client.get("/api/v1/workflows")
    noted = [line.get("client") for line in lines if line["event"] == "request"]
    assert noted == [hashlib.sha256(SECRET.encode()).hexdigest()[:8], None]
