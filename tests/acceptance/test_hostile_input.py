"""Hostile requests, byte for byte, against a real API process. The ids are those of docs/security.md."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.acceptance.processes import Process, bare_environment, free_port, wait_until_healthy
from tests.conftest import AUTH, SECRET

MIB = 1024 * 1024
NOBODY = "11111111-1111-1111-1111-111111111111"


@pytest.fixture(scope="module")
def port(
    shared_database_url: str, runner_number: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """One API process for all cases. Nothing runs the jobs: they are not what is tested."""
    number = free_port()
    environment = bare_environment(
        DATABASE_URL=shared_database_url,
        REDIS_URL="redis://127.0.0.1:1/0",
        LLM_SERVICE_API_SECRET=SECRET,
        LLM_SERVICE_MODEL="offline",
        LLM_SERVICE_LOG_FORMAT="json",
        PORT=str(number),
    )
    log: Path = tmp_path_factory.mktemp("hostile") / "api.log"
    with Process(["llm-service", "api"], environment, log) as process:
        wait_until_healthy(number, status="degraded")
        yield number
        lines = log.read_text().splitlines()
        broken = [line for line in lines if not line.startswith("{")]
        assert broken == [], "a line of the log that is not JSON"
        assert [line for line in lines if "unhandled error" in line] == []
        assert not process.output().count("Traceback")


class Answer(NamedTuple):
    status: int
    head: str
    body: bytes

    @property
    def detail(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["detail"]
        return found


def send(port: int, raw: bytes) -> Answer:
    """What a request gets. The server may answer, and close, before it has read all of it."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(raw)
        received = b""
        while b"\r\n\r\n" not in received:
            if not (part := connection.recv(65_536)):
                break
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:])
        while len(body) < int(fields.get("content-length", 0)):
            body += connection.recv(65_536)
    return Answer(int(lines[0].split()[1]), head.decode("latin-1"), body)


def request(method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
    """A request as it goes over the wire; headers with underscores for hyphens."""
    fields = {"Host": "test", "Connection": "close", **AUTH}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    if body and "Transfer-Encoding" not in fields:
        fields.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def post(body: bytes, **headers: str) -> bytes:
    return request("POST", "/api/v1/workflow", body, **headers)


def chunked(body: bytes, size: int = 65_536) -> bytes:
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return post(framed + b"0\r\n\r\n", Transfer_Encoding="chunked")


def listing(query: str) -> bytes:
    return request("GET", f"/api/v1/jobs?{query}")


def submission(more: bytes = b"", fields: bytes = b"") -> bytes:
    return b'{"workflow_name":"completion","input_data":{"prompt":"x"' + more + b"}" + fields + b"}"


def of_size(size: int) -> bytes:
    filler = b',"note":"%b"'
    return submission(filler % (b"y" * (size - len(submission(filler % b"")))))


def nested(levels: int) -> bytes:
    """A body that is so many levels deep in all: its own two are counted."""
    inside = levels - 2
    return submission(b',"note":' + b"[" * inside + b"]" * inside)


EMOJI = "\U0001f600".encode()
KEYS = b",".join(b'"%x":0' % number for number in range(100_000))
CASES: dict[str, tuple[bytes, int, str]] = {
    "s31 1 MiB by length": (post(of_size(MIB)), 202, ""),
    "s31 1 MiB and 1 byte by length": (post(of_size(MIB + 1)), 413, "BodyTooLarge"),
    "s31 10 MiB by length": (post(of_size(10 * MIB)), 413, "BodyTooLarge"),
    "s31 1 MiB in chunks": (chunked(of_size(MIB)), 202, ""),
    "s31 1 MiB and 1 byte in chunks": (chunked(of_size(MIB + 1)), 413, "BodyTooLarge"),
    "s31 12 MiB in chunks": (chunked(of_size(12 * MIB)), 413, "BodyTooLarge"),
    "s32 64 levels": (post(nested(64)), 202, ""),
    "s32 65 levels": (post(nested(65)), 400, "MalformedBody"),
    "s32 900 levels": (post(nested(900)), 400, "MalformedBody"),
    "s32 100,000 levels": (post(nested(100_000)), 400, "MalformedBody"),
    "s32 100,000 levels that never close": (post(b'{"a":' * 100_000), 400, "MalformedBody"),
    "s33 not UTF-8": (post(submission(b',"note":"\xff\xfe"')), 400, "MalformedBody"),
    "s33 UTF-16": (post(submission().decode().encode("utf-16")), 400, "MalformedBody"),
    "s33 an overlong slash": (post(submission(b',"note":"\xc0\xaf"')), 400, "MalformedBody"),
    "s33 a surrogate in UTF-8": (post(submission(b',"note":"\xed\xa0\x80"')), 400, "MalformedBody"),
    "s34 an escaped NUL": (post(submission(b',"note":["a",{"b":"\\u0000"}]')), 422, "ValidationError"),
    "s34 an escaped NUL in a key": (post(submission(b',"a\\u0000":1')), 422, "ValidationError"),
    "s34 an escaped NUL in a field": (
        post(submission(b"", b',"username":"\\u0000"')),
        422,
        "ValidationError",
    ),
    "s34 a bare NUL": (post(submission(b',"note":"\x00"')), 400, "MalformedBody"),
    "s34 a NUL in the query": (listing("username=%00"), 422, "ValidationError"),
    "s34 a NUL in a path": (request("GET", "/api/v1/jobs/%00"), 404, "JobNotFound"),
    "s35 half a pair": (post(submission(b',"note":"\\ud800"')), 422, "ValidationError"),
    "s35 the other half": (post(submission(b',"note":"\\udc00x"')), 422, "ValidationError"),
    "s35 halves in the wrong order": (post(submission(b',"note":"\\udc00\\ud800"')), 422, "ValidationError"),
    "s36 2^64": (post(submission(b',"note":18446744073709551616')), 202, ""),
    "s36 5,000 digits": (post(submission(b',"note":' + b"9" * 5000)), 202, ""),
    "s36 5,000 digits as priority": (
        post(submission(b"", b',"priority":' + b"9" * 5000)),
        422,
        "ValidationError",
    ),
    "s36 1e400": (post(submission(b',"note":1e400')), 202, ""),
    "s36 1e200000": (post(submission(b',"note":1e200000')), 422, "InvalidInputData"),
    "s36 NaN": (post(submission(b',"note":NaN')), 400, "MalformedBody"),
    "s36 -Infinity": (post(submission(b',"note":-Infinity')), 400, "MalformedBody"),
    "s36 repeated keys": (post(submission(b',"prompt":"y"', b',"priority":1,"priority":2')), 202, ""),
    "s36 a BOM": (post(b"\xef\xbb\xbf" + submission()), 400, "MalformedBody"),
    "s36 trailing garbage": (post(submission() + b"x"), 400, "MalformedBody"),
    "s36 two documents": (post(submission() * 2), 400, "MalformedBody"),
    "s36 nothing": (post(b""), 400, "MalformedBody"),
    "s36 blanks": (post(b"   "), 400, "MalformedBody"),
    "s36 a list": (post(b"[]"), 422, "ValidationError"),
    "s36 null": (post(b"null"), 422, "ValidationError"),
    "s37 100,000 keys": (post(submission(b"," + KEYS)), 202, ""),
    "s37 200,000 times one key": (
        post(submission(b',"a":{' + b",".join([b'"":1'] * 200_000) + b"}")),
        202,
        "",
    ),
    "s38 text/plain": (post(submission(), Content_Type="text/plain"), 415, "UnsupportedMediaType"),
    "s38 a form": (
        post(b"a=b", Content_Type="application/x-www-form-urlencoded"),
        415,
        "UnsupportedMediaType",
    ),
    "s38 multipart": (
        post(b"--x--", Content_Type="multipart/form-data; boundary=x"),
        415,
        "UnsupportedMediaType",
    ),
    "s38 msgpack": (post(b"\x80", Content_Type="application/x-msgpack"), 415, "UnsupportedMediaType"),
    "s38 a compressed body": (
        post(b"\x1f\x8b" + submission(), Content_Encoding="gzip"),
        400,
        "MalformedBody",
    ),
    "s39 offset -1": (listing("offset=-1"), 422, "ValidationError"),
    "s39 offset 2^31": (listing("offset=2147483648"), 422, "ValidationError"),
    "s39 offset 2^63": (listing("offset=9223372036854775808"), 422, "ValidationError"),
    "s39 offset 10^30": (listing(f"offset={10**30}"), 422, "ValidationError"),
    "s39 offset of 5,000 digits": (listing("offset=" + "9" * 5000), 422, "ValidationError"),
    "s40 limit 1e3": (listing("limit=1e3"), 422, "ValidationError"),
    "s40 limit +5": (listing("limit=%2B5"), 422, "ValidationError"),
    "s40 limit with blanks": (listing("limit=%205%20"), 422, "ValidationError"),
    "s40 limit 1_0": (listing("limit=1_0"), 422, "ValidationError"),
    "s40 limit in Arabic digits": (listing("limit=%D9%A2%D9%A5"), 422, "ValidationError"),
    "s40 limit twice": (listing("limit=5&limit=6"), 422, "ValidationError"),
    "s40 limit_results 1e3": (listing("limit_results=1e3"), 400, "InvalidLimitResults"),
    "s40 limit_results +5": (listing("limit_results=%2B5"), 400, "InvalidLimitResults"),
    "s40 limit_results in Arabic digits": (listing("limit_results=%D9%A2"), 400, "InvalidLimitResults"),
    "s40 limit_results with a line break": (listing("limit_results=5%0A"), 400, "InvalidLimitResults"),
    "s40 limit_results twice": (listing("limit_results=5&limit_results=Today"), 422, "ValidationError"),
    "s41 255 emoji": (post(submission(b"", b',"username":"' + EMOJI * 255 + b'"')), 202, ""),
    "s41 256 emoji": (post(submission(b"", b',"username":"' + EMOJI * 256 + b'"')), 422, "ValidationError"),
    "s41 255 emoji as action": (post(submission(b"", b',"action":"' + EMOJI * 255 + b'"')), 202, ""),
    "s41 priority 10": (post(submission(b"", b',"priority":10')), 202, ""),
    "s41 priority -1": (post(submission(b"", b',"priority":-1')), 422, "ValidationError"),
    "s41 priority 11": (post(submission(b"", b',"priority":11')), 422, "ValidationError"),
    "s41 priority true": (post(submission(b"", b',"priority":true')), 422, "ValidationError"),
    "s41 priority as text": (post(submission(b"", b',"priority":"3"')), 422, "ValidationError"),
    "s41 priority 3.0": (post(submission(b"", b',"priority":3.0')), 422, "ValidationError"),
    "s42 an id that is none": (request("GET", "/api/v1/jobs/42"), 404, "JobNotFound"),
    "s42 an id in braces": (request("GET", f"/api/v1/jobs/%7B{NOBODY}%7D"), 404, "JobNotFound"),
    "s42 an id of 5,000 characters": (request("GET", "/api/v1/jobs/" + "a" * 5000), 404, "JobNotFound"),
    "s42 a path that climbs": (
        request("GET", "/api/v1/jobs/..%2F..%2Fmetrics"),
        404,
        "RouteNotFound",
    ),
    "s42 a user_id that is none": (listing("user_id=42"), 400, "InvalidUserID"),
    "s42 a body with a wrong user_id": (post(submission(b"", b',"user_id":"42"')), 422, "ValidationError"),
    "s44 SQL in a filter": (listing("username=%27%20OR%201%3D1--"), 200, ""),
    "s44 SQL in a status": (listing("status=%27%3B--"), 400, "InvalidStatusFilter"),
    "s44 a percent sign in a filter": (listing("username=%25"), 200, ""),
    "s46 a line break in a path": (
        request("GET", "/api/v1/jobs/x%0D%0ASet-Cookie:%20a=b"),
        404,
        "JobNotFound",
    ),
}


@pytest.mark.xdist_group("hostile input")
@pytest.mark.parametrize("case", CASES)
def test_a_hostile_request_is_answered_as_written(port: int, case: str) -> None:
    raw, status, code = CASES[case]
    answer = send(port, raw)
    assert answer.status == status, answer.body[:300]
    assert "set-cookie" not in answer.head.lower()
    if code:
        assert answer.detail["error"] == code
        echoed = [value for value in answer.detail.values() if isinstance(value, str)]
        assert all(len(value) < 500 for value in echoed), "an error repeats more than it should"


@pytest.mark.xdist_group("hostile input")
@pytest.mark.parametrize(
    ("raw", "statuses"),
    [
        pytest.param(request("GET", "/api/v1/jobs?username=" + "a" * 70_000), {400, 414, 422, 431}, id="a URL of 70 KB"),
        pytest.param(request("GET", "/" + "a" * 70_000), {400, 404, 414, 431}, id="a path of 70 KB"),
        pytest.param(
            request("GET", "/api/v1/jobs", b"", **{f"X-{n}": "a" for n in range(100)}), {200, 400, 431}, id="100 headers"
        ),
        pytest.param(request("GET", "/api/v1/jobs", X_Long="a" * 200_000), {200, 400, 431}, id="a header of 200 KB"),
        pytest.param(request("GET", "/health", X_Long="a" * 2_000_000), {431}, id="a header of 2 MB"),
        pytest.param(post(submission(), Content_Length="-1"), {400}, id="a negative length"),
        pytest.param(post(submission(), Content_Length="1e3"), {400}, id="a length that is no number"),
        pytest.param(b"GET /api/v1/jobs HTTP/1.1\r\nHost: a\r\nX-A: b\nc\r\n\r\n", {400, 401}, id="a bare line feed"),
        pytest.param(b"GET /api/v1/jobs HTTP/9.9\r\n\r\n", {400, 401}, id="another version"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}, id="TLS without TLS"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 401, 404, 405}, id="HTTP/2"),
    ],
)  # fmt: skip
def test_s42_a_request_out_of_all_proportion_is_refused(port: int, raw: bytes, statuses: set[int]) -> None:
    assert send(port, raw).status in statuses


@pytest.mark.xdist_group("hostile input")
def test_s42_two_lengths_do_not_smuggle_a_second_request(port: int) -> None:
    hidden = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"
    answer = send(port, post(b"0\r\n\r\n" + hidden, Content_Length="5", Transfer_Encoding="chunked"))
    assert answer.status in {400, 401}
    assert b"llm_http" not in answer.body
