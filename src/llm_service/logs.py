"""How the service logs: one structlog line an event, JSON in production and pretty on a terminal.

Request and job ids are bound as context variables, so that every line of a request or a job carries them.
Neither prompts nor results are ever logged; values under telling names are masked as a second defence.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

MASK = "***"
TELLING = re.compile(
    r"secret|password|api[_-]?key|authorization|cookie|credential|database_url|redis_url|dsn", re.IGNORECASE
)
URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s]+@")
ASSIGNED = re.compile(r"(?i)((?:secret|password|passwd|api[_-]?key)=)[^\s&;,'\"]+")
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
    """Set up structlog, and the standard library's loggers below it, for this process."""
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
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(ensure_ascii=True)
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
        logging.getLogger(name).setLevel(max(floor, logging.getLevelName(level)))


def mask_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask values under telling names, passwords inside URLs and bearer tokens, however deeply nested."""
    # Names with an underscore are structlog's own, for the steps that follow.
    return {name: value if name.startswith("_") else _masked(name, value) for name, value in event.items()}


def _masked(name: str, value: Any) -> Any:
    if value is None:
        return None
    if TELLING.search(name):
        return MASK
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): _masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(name, inner) for inner in value]
    return _masked_text(value if isinstance(value, str) else _shown(value))


def _shown(value: object) -> str:
    """What the line would hold. An object that can't show itself must not lose the line."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - its own code runs here
        return f"<{type(value).__name__}>"


def _masked_text(text: str) -> str:
    text = URL_PASSWORD.sub(rf"\1{MASK}@", text)
    return BEARER.sub(rf"\1{MASK}", ASSIGNED.sub(rf"\1{MASK}", text))


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger
