"""How the service logs: one structlog line an event, JSON in production and pretty on a terminal.

Request and job ids are bound as context variables, so that every line of a request or a job carries them.
Neither prompts nor results are ever logged; values under telling names are masked as a second defence.
"""

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from functools import lru_cache, partial
from typing import Any, TextIO

import structlog
from structlog.typing import FilteringBoundLogger

MASK = "***"
TELLING = re.compile(
    r"secret|password|api[_-]?key|authorization|cookie|credential|database_url|redis_url|dsn", re.IGNORECASE
)
URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s]+@")
ASSIGNED = re.compile(r"(?i)((?:secret|password|passwd|api[_-]?key)=)[^\s&;,'\"]+")
SHORTEST_BEARER = len("bearer 12345678") - 1
BEARER = re.compile(r"(?i)\b(bearer\s+)[a-z0-9._~+/=-]{8,}")

QUIET = {
    # arq announces every hint; ours say the same with the job id bound.
    "arq": logging.WARNING,
    # asyncpg logs a traceback for each reconnect of its pool while the server is away.
    "asyncpg": logging.ERROR,
    "uvicorn.access": logging.WARNING,
    "uvicorn.error": logging.WARNING,
}


def configure_logs(level: str, style: str) -> None:
    """Set up structlog, and beside it the loggers of libraries, for this process."""
    pretty = style == "pretty" or (style == "auto" and sys.stderr.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    renderer: structlog.types.Processor = _Pretty() if pretty else _as_json
    number = logging.getLevelName(level)
    # Ours do not pass through the standard library's: a line of every request would pay for both.
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=partial(_Stream, sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name, floor in QUIET.items():
        logging.getLogger(name).setLevel(max(floor, number))


class _Stream:
    """Writes each line whole and at once, so that those of several processes do not mix."""

    def __init__(self, stream: TextIO, name: str = "") -> None:
        self.name = name
        self._stream = stream

    def msg(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()

    debug = info = warning = error = critical = exception = msg


def _as_json(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    return _encode(event)


class _Pretty:
    """Lines for a terminal, where what does not print would move the cursor, hide text or forge a line."""

    def __init__(self) -> None:
        self._render = structlog.dev.ConsoleRenderer()

    def __call__(self, log: Any, method: str, event: MutableMapping[str, Any]) -> str:
        shown = {name: _printable(name, value) for name, value in event.items()}
        return str(self._render(log, method, shown))


def _printable(name: str, value: Any) -> Any:
    if not isinstance(value, str) or value.isprintable():
        return value
    breaks = "\n" if name in {"exception", "stack"} else ""
    return "".join(
        letter if letter.isprintable() or letter in breaks else repr(letter)[1:-1] for letter in value
    )


def mask_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask values under telling names, passwords inside URLs and bearer tokens, however deeply nested."""
    # Names with an underscore are structlog's own, for the steps that follow.
    return {name: value if name.startswith("_") else _masked(name, value) for name, value in event.items()}


def _masked(name: str, value: Any) -> Any:
    if value is None:
        return None
    if _is_telling(name):
        return MASK
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): _masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(name, inner) for inner in value]
    return _masked_text(value if isinstance(value, str) else _shown(value))


@lru_cache(maxsize=1024)
def _is_telling(name: str) -> bool:
    return TELLING.search(name) is not None


def _shown(value: object) -> str:
    """What the line would hold. An object that can't show itself must not lose the line."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - its own code runs here
        return f"<{type(value).__name__}>"


def _masked_text(text: str) -> str:
    if "://" in text:
        text = URL_PASSWORD.sub(rf"\1{MASK}@", text)
    if "=" in text:
        text = ASSIGNED.sub(rf"\1{MASK}", text)
    return BEARER.sub(rf"\1{MASK}", text) if len(text) > SHORTEST_BEARER else text


_encode = json.JSONEncoder(ensure_ascii=True, default=_shown).encode


def get_logger(name: str) -> FilteringBoundLogger:
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger
