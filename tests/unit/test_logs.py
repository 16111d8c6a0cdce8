"""What a log line shows, what it hides, and that it stays one line."""

import io
import json
import logging
import os
import pty
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from typing import Any

import pytest
import structlog

from llm_service.logs import MASK, QUIET, configure_logs, mask_secrets

CANARY = "hunter2canary"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def untouched() -> Iterator[None]:
    """Gives the process its loggers back."""
    root = logging.getLogger()
    handlers, level, config = root.handlers, root.level, structlog.get_config()
    levels = {name: logging.getLogger(name).level for name in QUIET}
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**config)
    structlog.contextvars.clear_contextvars()
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture
def written(untouched: None) -> io.StringIO:
    """What a process that is no terminal writes to stderr."""
    stream = io.StringIO()
    with redirect_stderr(stream):
        configure_logs("DEBUG", "auto")
    return stream


@pytest.fixture
def lines(written: io.StringIO) -> Lines:
    """Each line that was written, decoded."""

    def read() -> list[dict[str, Any]]:
        text = written.getvalue()
        assert CANARY not in text
        assert text.isascii()
        return [json.loads(line) for line in text.splitlines()]

    return read


def masked(**values: Any) -> dict[str, Any]:
    return dict(mask_secrets(None, "info", values))


# --- masking ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "api_secret",
        "X-API-Secret",
        "webhook_secret",
        "password",
        "ADMIN_PASSWORD",
        "openai_api_key",
        "apikey",
        "x-api-key",
        "Authorization",
        "cookie",
        "Set-Cookie",
        "credentials",
        "DATABASE_URL",
        "redis_url",
        "dsn",
    ],
)
def test_s48_a_value_under_a_telling_name_is_masked_wherever_it_is(name: str) -> None:
    event = masked(**{name: CANARY}, deep=[{"list": ({name: CANARY},)}], inner={name: {"a": [CANARY, 7]}})
    assert CANARY not in repr(event)
    assert event[name] == MASK
    assert event["deep"] == [{"list": [{name: MASK}]}]


def test_other_values_stay_as_they_are() -> None:
    plain = {
        "job_id": "x",
        "n": 3,
        "f": 1.5,
        "b": True,
        "none": None,
        "l": ["a", {"k": 1}],
        "input_tokens": 11,
    }
    assert masked(**plain) == plain
    assert masked(secret=None) == {"secret": None}, "None says that there was none"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql://app:{CANARY}@db/jobs", f"postgresql://app:{MASK}@db/jobs"),
        (f"redis://:{CANARY}@h:6379/0", f"redis://:{MASK}@h:6379/0"),
        (f"https://u:p@{CANARY}@h/x", f"https://u:{MASK}@h/x"),
        (f"a http://u:{CANARY}@h/ b http://v:{CANARY}@i/ c", f"a http://u:{MASK}@h/ b http://v:{MASK}@i/ c"),
        (f"http://u:{CANARY * 50}@h/", f"http://u:{MASK}@h/"),
        (
            f"postgresql://app@/db?host=/x&password={CANARY}&port=1",
            f"postgresql://app@/db?host=/x&password={MASK}&port=1",
        ),
        (f"host=db password={CANARY} dbname=x", f"host=db password={MASK} dbname=x"),
        (f"Authorization: Bearer {CANARY}.x-y_z", f"Authorization: Bearer {MASK}"),
        (f"bearer {CANARY}==", f"bearer {MASK}"),
    ],
)
def test_s48_a_secret_inside_a_text_is_masked(text: str, shown: str) -> None:
    assert masked(event=text, deep={"list": [text]}) == {"event": shown, "deep": {"list": [shown]}}


@pytest.mark.parametrize(
    "text",
    [
        "http://host:8000/a@b",
        "https://example.com/path",
        "mail a@b.example",
        "10:30 jane@home",
        "bearer of news",
    ],
)
def test_a_text_without_a_secret_stays(text: str) -> None:
    assert masked(event=text) == {"event": text}


def test_what_is_no_text_is_masked_as_it_would_be_written() -> None:
    class Shown:
        def __repr__(self) -> str:
            return f"<postgresql://app:{CANARY}@db/jobs>"

    event = masked(
        error=Shown(), cause=ValueError(f"Bearer {CANARY}"), raw=f"http://u:{CANARY}@h".encode(), s={Shown()}
    )
    assert CANARY not in repr(event)
    assert event["error"] == f"<postgresql://app:{MASK}@db/jobs>"


def test_s45_masking_long_hostile_text_is_quick() -> None:
    for text in (
        "://a:" * 20_000,
        "://" + "a" * 100_000,
        "bearer " * 15_000,
        "password=" * 10_000,
        "://:" + ":" * 100_000,
    ):
        started = time.perf_counter()
        masked(event=text)
        assert time.perf_counter() - started < 1


# --- lines ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "a\nb",
        "a\r\nb",
        '{"level": "critical"}\n{"event": "forged"}',
        "\x1b[2J\x1b[31mred",
        "a\u2028b\u2029c",
        "a\x85b\x0b\x0c",
        "nul\x00",
        'quote"',
        "\x7f\x9b31m",
    ],
)
def test_s49_whatever_is_logged_is_one_line(lines: Lines, value: str) -> None:
    log = structlog.get_logger("test")
    log.info("event", username=value, nested={"key": [value], value: 1})
    log.info(value)
    logging.getLogger("library").warning("said %s", value)
    first, second, third = lines()
    assert first["username"] == first["nested"]["key"][0] == value
    assert second["event"] == value
    assert third["event"] == f"said {value}"
    assert (first["level"], first["logger"]) == ("info", "test")


@pytest.mark.parametrize(
    "value", ["a\nb", "\x1b[2J\x1b[31mred", "a\u2028b", "\r\x7f\x9b31m", "a\u202eb\u200b", "\x00\x07"]
)
def test_s49_nothing_that_is_logged_moves_the_cursor_of_a_terminal(untouched: None, value: str) -> None:
    stream = io.StringIO()
    with redirect_stderr(stream):
        configure_logs("DEBUG", "pretty")
    structlog.get_logger("test").info("event", path=value, nested={value: [value]})
    logging.getLogger("library").warning("said %s", value)
    colourless = re.sub(r"\x1b\[\d*m", "", stream.getvalue().replace(value, "FORGED"))
    assert "FORGED" not in colourless
    first, second = colourless.splitlines()
    assert (first.isprintable(), second.isprintable()) == (True, True)


def test_a_traceback_is_one_line_and_shows_no_password(lines: Lines) -> None:
    def fail() -> None:
        raise RuntimeError(f"could not reach postgresql://app:{CANARY}@db/jobs")

    def fail_because() -> None:
        try:
            fail()
        except RuntimeError as error:
            raise ValueError(f"Bearer {CANARY}\nsecond line") from error

    for log in (structlog.get_logger("test").exception, logging.getLogger("library").exception):
        try:
            fail_because()
        except ValueError:
            log("it failed")
    try:
        fail()
    except RuntimeError as error:
        structlog.get_logger("test").error("and again", exc_info=error, cause=error)
    found = lines()
    assert len(found) == 3
    for line in found:
        assert f"postgresql://app:{MASK}@db/jobs" in line["exception"]
        assert "RuntimeError" in line["exception"]


def test_odd_values_lose_no_line(lines: Lines) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    structlog.get_logger("test").info(
        "odd", keys={(1, 2): "a", None: "b", 3: "c"}, raw=b"\xff", of=object(), bad=Broken()
    )
    [line] = lines()
    assert line["event"] == "odd"
    assert line["keys"] == {"(1, 2)": "a", "None": "b", "3": "c"}


def test_ids_bound_to_a_request_are_on_every_line_of_it(lines: Lines) -> None:
    structlog.contextvars.bind_contextvars(request_id="r-1")
    structlog.get_logger("test").info("a")
    logging.getLogger("library").info("b")
    assert [line["request_id"] for line in lines()] == ["r-1", "r-1"]


def test_the_level_holds_and_chatty_libraries_are_quieter(written: io.StringIO, lines: Lines) -> None:
    logging.getLogger("arq.worker").info("announced")
    logging.getLogger("asyncpg").warning("reconnecting")
    logging.getLogger("uvicorn.access").info("GET /")
    structlog.get_logger("test").debug("wanted")
    assert [line["event"] for line in lines()] == ["wanted"]
    with redirect_stderr(written):
        configure_logs("ERROR", "json")
    structlog.get_logger("other").warning("not wanted")
    logging.getLogger("arq").error("wanted too")
    assert [line["event"] for line in lines()] == ["wanted", "wanted too"]


def test_a_terminal_gets_pretty_lines_unless_json_is_asked_for(
    untouched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    with open(theirs, "w", encoding="utf-8") as terminal:  # noqa: PTH123 - a descriptor
        monkeypatch.setattr(sys, "stderr", terminal)
        configure_logs("INFO", "auto")
        structlog.get_logger("pretty").info("hello", key="value")
        pretty = os.read(ours, 4096).decode()
        configure_logs("INFO", "json")
        structlog.get_logger("plain").info("hello")
        plain = os.read(ours, 4096).decode()
    os.close(ours)
    assert "hello" in pretty
    assert not pretty.lstrip().startswith("{")
    assert json.loads(plain)["event"] == "hello"
