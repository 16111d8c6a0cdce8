"""One POST against receivers that hang, drip, redirect, never end or lie, and past every way around the guard."""

import asyncio
import datetime as dt
import socket
import ssl
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.fakes.raw_server import OK, RawServer, hang, read_request

from llm_service.webhooks.post import MAX_KEPT, Answer, open_session, post

LOCAL = ("127.0.0.1",)


async def sent(
    url: str, allowed: tuple[str, ...] = LOCAL, *, body: bytes = b"{}", deadline_s: float = 15.0
) -> Answer:
    async with open_session(allowed) as session:
        return await post(session, url, body, {}, deadline_s=deadline_s)


def answering(answer: bytes) -> RawServer:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    return RawServer(reply)


# --- hostile answers --------------------------------------------------------------------------------------


async def test_a_receiver_that_hangs_is_given_up_at_the_deadline() -> None:
    async with RawServer(hang) as server:
        answer = await sent(server.url, deadline_s=0.2)
        assert (answer.status, answer.error) == (None, "no answer within 0.2 s")
        await server.wait_until(lambda s: s.open == 0)


@pytest.mark.parametrize(
    "begun",
    [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"],
    ids=["head", "body"],
)
async def test_a_receiver_that_drips_is_given_up_at_the_same_deadline(begun: bytes) -> None:
    """Each byte is in time; the whole is not. In the head and in the body."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for byte in [begun, *([b"H"] * 10_000)]:
            writer.write(byte)
            await writer.drain()
            await asyncio.sleep(0.01)

    async with RawServer(drip) as server:
        answer = await sent(server.url, deadline_s=0.3)
        assert (answer.status, answer.error) == (None, "no answer within 0.3 s")


async def test_a_body_of_2_gb_is_left_after_64_kb() -> None:
    chunk, written = b"x" * 65_536, 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2147483648\r\n\r\n")
        while written < 2**31:
            writer.write(chunk)
            await writer.drain()
            written += len(chunk)

    async with RawServer(pour) as server:
        tracemalloc.start()
        answer = await sent(server.url)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        await server.wait_until(lambda s: s.open == 0)
    assert answer.delivered, "the status decides"
    assert answer.text == "x" * MAX_KEPT
    assert written < 32 * 2**20, "what the buffers of the two sockets take, and no more"
    assert most < 8 * 2**20


async def test_a_compressed_bomb_stays_compressed() -> None:
    import gzip

    packed = gzip.compress(b"x" * 50_000_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    async with answering(head + packed) as server:
        answer = await sent(server.url)
    assert answer.delivered
    assert answer.text is not None
    assert "xxxx" not in answer.text


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(100_000)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=[
        *("closed", "no-http", "status", "long-header", "many-headers", "length", "cut-short", "chunks"),
    ],
)
async def test_an_answer_that_is_none_is_a_failure_and_raises_nothing(answer: bytes) -> None:
    async with answering(answer) as server:
        got = await sent(server.url)
    assert got.status is None
    assert got.error is not None
    assert got.error.startswith("the connection failed (")


async def test_s14_1_kb_of_an_answer_is_kept_as_text() -> None:
    text = b"\x00\xff<script>" + b"y" * 5_000
    async with answering(
        b"HTTP/1.1 500 E\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(text), text)
    ) as server:
        answer = await sent(server.url)
    assert (answer.status, answer.error, answer.delivered) == (500, "HTTP 500", False)
    assert answer.text is not None
    assert answer.text.startswith("\ufffd\ufffd<script>y")
    assert len(answer.text) == MAX_KEPT


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_s11_a_redirect_is_a_failure_and_never_followed(status: int) -> None:
    async with answering(OK) as target:
        location = f"Location: http://127.0.0.1:{target.port}/".encode()
        head = b"HTTP/1.1 %d R\r\n%s\r\nContent-Length: 0\r\n\r\n" % (status, location)
        async with answering(head) as server:
            answer = await sent(server.url)
        assert (answer.status, answer.delivered) == (status, False)
        assert target.connections == 0


@pytest.mark.parametrize(
    ("header", "expected"), [("120", 120.0), ("86400", 3600.0), ("-5", None), ("soon", None)]
)
async def test_retry_after_is_read_and_capped_at_an_hour(header: str, expected: float | None) -> None:
    head = f"HTTP/1.1 503 Away\r\nRetry-After: {header}\r\nContent-Length: 0\r\n\r\n".encode()
    async with answering(head) as server:
        answer = await sent(server.url)
    assert answer.retry_after_s == expected


async def test_s16_the_bytes_sent_are_the_bytes_given() -> None:
    body = ('{"z": "Žofie 😀", "a": "' + "é" * 499_000 + '"}').encode()
    assert 990_000 < len(body) <= 1_000_000
    got = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append((await read_request(reader))[1])
        writer.write(OK)

    async with RawServer(keep) as server:
        assert (await sent(server.url, body=body)).delivered
    assert got == [body]


# --- the guard on the way ---------------------------------------------------------------------------------


class Names(AbstractResolver):
    """A resolver whose answers the test gives, in turn for each name; the last one again and again."""

    def __init__(self, answers: Mapping[str, list[list[str]]]) -> None:
        self._answers = {name: list(turns) for name, turns in answers.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        turns = self._answers[host]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in (turns.pop(0) if len(turns) > 1 else turns[0])
        ]

    async def close(self) -> None:
        """Nothing is held."""


BLOCKED = (None, "address not allowed", True)


def outcome(answer: Answer) -> tuple[int | None, str | None, bool]:
    return answer.status, answer.error, answer.blocked


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "localhost",
            "127。0。0。1",
            "１２７.０.０.１",
        ),
        "[::ffff:127.0.0.1]",
    ],
)
async def test_s09_no_spelling_of_loopback_reaches_it(host: str) -> None:
    """The last line of defence alone: the URL was not checked before."""
    async with answering(OK) as server:
        answer = await sent(f"http://{host}:{server.port}/", ())
        assert not answer.delivered
        assert server.connections == 0
        assert answer.error is not None
        assert "127.0.0.1" not in answer.error


async def test_s10_a_name_that_turns_private_is_blocked_at_its_second_connection() -> None:
    """DNS rebinding. The public answer leads nowhere here: it fails as a connection, not as an address."""
    names = Names({"rebind.test": [["93.184.215.14"], ["127.0.0.1"]]})
    async with answering(OK) as server, open_session((), resolver=names) as session:
        url = f"http://rebind.test:{server.port}/"
        first = await post(session, url, b"{}", {}, deadline_s=0.3)
        second = await post(session, url, b"{}", {})
        assert not first.blocked
        assert outcome(second) == BLOCKED
        assert names.asked == ["rebind.test"] * 2, "nothing is remembered between tries"
        assert server.connections == 0


@pytest.mark.parametrize("answers", [["127.0.0.1", "93.184.215.14"], ["93.184.215.14", "::1"], ["10.0.0.1"]])
async def test_s10_one_private_answer_blocks_the_name(answers: list[str]) -> None:
    async with open_session((), resolver=Names({"mixed.test": [answers]})) as session:
        assert outcome(await post(session, "https://mixed.test/", b"{}", {})) == BLOCKED


async def test_s14_a_refusal_never_tells_what_the_name_stands_for() -> None:
    async with open_session((), resolver=Names({"inside.test": [["10.11.12.13"]]})) as session:
        answer = await post(session, "https://inside.test/", b"{}", {})
    assert "10.11.12.13" not in repr(answer)


async def test_s12_a_kept_connection_serves_its_own_host_alone() -> None:
    """Both names stand for one server: each gets a connection and a Host of its own."""
    hosts = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            hosts.append(next(line for line in head.split(b"\r\n") if line.startswith(b"Host:")))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    names = Names({"a.test": [["127.0.0.1"]], "b.test": [["127.0.0.1"]]})
    async with RawServer(serve) as server, open_session(("a.test", "b.test"), resolver=names) as session:
        for name in ("a.test", "a.test", "b.test"):
            assert (await post(session, f"http://{name}:{server.port}/", b"{}", {})).delivered
        assert server.connections == 2
        expected = [f"Host: {name}:{server.port}".encode() for name in ("a.test", "a.test", "b.test")]
        assert hosts == expected
        blocked = await post(session, f"http://127.0.0.1:{server.port}/", b"{}", {})
        assert outcome(blocked) == BLOCKED, "the open connection to this very address serves nobody else"


async def test_s13_an_exception_is_for_its_host_alone() -> None:
    async with answering(OK) as server:
        for allowed, delivered in (
            (("127.0.0.1",), True),
            ((f"127.0.0.1:{server.port}",), True),
            (("127.0.0.1:1",), False),
            (("localhost",), False),
            ((), False),
        ):
            assert (await sent(server.url, allowed)).delivered == delivered, allowed


async def test_s10_proxies_in_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(OK) as proxy, answering(OK) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "")
        assert (await sent(server.url)).delivered
        async with open_session((), resolver=Names({"x.test": [["10.0.0.1"]]})) as session:
            assert outcome(await post(session, "https://x.test/", b"{}", {})) == BLOCKED
        assert proxy.connections == 0
        async with aiohttp.ClientSession(trust_env=True) as naive, naive.post(server.url) as answer:
            await answer.read()
        assert proxy.connections == 1, "a client that does read them is led astray"


# --- TLS --------------------------------------------------------------------------------------------------


def certificate(
    name: str, folder: Path, signer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate for a name; an authority's own where nobody signs it. Kept as NAME.pem and NAME.key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer[0].subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if signer is not None:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer[1].public_key())
        builder = builder.add_extension(issuer, critical=False)
    made = builder.sign(signer[1] if signer else key, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return made, key


async def test_s10_the_certificate_is_checked_against_the_name_and_not_the_address(tmp_path: Path) -> None:
    authority = certificate("authority", tmp_path)
    certificate("hooks.test", tmp_path, authority)
    asked_for = []

    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(tmp_path / "hooks.test.pem", tmp_path / "hooks.test.key")
    served.sni_callback = lambda _, name, __: asked_for.append(name)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "authority.pem"))
    both = {"hooks.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]}

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await read_request(reader)
        assert f"Host: hooks.test:{server.port}".encode() in head
        writer.write(OK)
        await writer.drain()

    async with (
        RawServer(reply, tls=served) as server,
        open_session(tuple(both), resolver=Names(both), ssl=trusting) as session,
    ):
        right = await post(session, f"https://hooks.test:{server.port}/", b"{}", {})
        wrong = await post(session, f"https://other.test:{server.port}/", b"{}", {})
    assert right.delivered, right.error
    assert (wrong.status, wrong.error) == (None, "the connection failed (ClientConnectorCertificateError)")
    assert asked_for == ["hooks.test", "other.test"]


async def test_s10_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    certificate("hooks.test", tmp_path)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(tmp_path / "hooks.test.pem", tmp_path / "hooks.test.key")
    names = Names({"hooks.test": [["127.0.0.1"]]})
    async with (
        RawServer(hang, tls=served) as server,
        open_session(("hooks.test",), resolver=names) as session,
    ):
        answer = await post(session, f"https://hooks.test:{server.port}/", b"{}", {})
    assert answer.error == "the connection failed (ClientConnectorCertificateError)"
