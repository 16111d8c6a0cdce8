"""Every setting of both processes, read once from the environment and checked; a wrong one names itself.

Usual names keep their usual meaning (DATABASE_URL, REDIS_URL, ...); ours begin with LLM_SERVICE_.
"""

import functools
import re
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Meta
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from llm_service.errors import SettingsInvalid

PREFIX = "LLM_SERVICE_"
UNPREFIXED = frozenset(
    {
        "DATABASE_URL",
        "REDIS_URL",
        "HOST",
        "PORT",
        "LOG_LEVEL",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        "OPENROUTER_API_KEY",
        "OPENROUTER_BASE_URL",
    }
)
MIN_SECRET = 16
MIN_PASSWORD = 12

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=100_000)]
OrOff = Annotated[int, Meta(ge=0, le=10_000_000)]
"""A limit; 0 is none."""
Price = Annotated[float, Meta(ge=0, le=1_000_000)]


class Secret:
    """A value that shows itself to nobody who prints it; `reveal()` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret(***)"

    def reveal(self) -> str:
        return self._value


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The environment as a value. Durations are in seconds."""

    database_url: str
    redis_url: str
    api_secret: tuple[Secret, ...]
    model: str
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65_535)] = 8000
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "pretty"] = "auto"
    openai_api_key: Secret | None = None
    openai_base_url: str = "https://api.openai.com/v1"
    anthropic_api_key: Secret | None = None
    anthropic_base_url: str = "https://api.anthropic.com"
    openrouter_api_key: Secret | None = None
    openrouter_base_url: str = "https://openrouter.ai/api/v1"
    webhook_secret: tuple[Secret, ...] = ()
    webhook_allowed_hosts: tuple[str, ...] = ()
    encryption_keys: tuple[Secret, ...] = ()
    admin_password: Secret | None = None
    admin_reader_password: Secret | None = None
    trusted_proxies: tuple[str, ...] = ()
    worker_concurrency: Count = 100
    webhook_concurrency: Count = 512
    api_processes: Annotated[int, Meta(ge=1, le=64)] = 1
    job_timeout: Seconds = 300
    call_timeout: Seconds = 120
    max_attempts: Annotated[int, Meta(ge=1, le=100)] = 3
    submit_rate: OrOff = 0
    user_submit_rate: OrOff = 0
    max_backlog: OrOff = 100_000
    max_calls_per_job: OrOff = 1000
    max_tokens_per_job: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    max_cost_per_job: Price = 0
    shutdown_grace: Seconds = 25
    leave_delay: Annotated[float, Meta(ge=0, le=300)] = 0
    lease: Annotated[float, Meta(ge=1, le=3600)] = 20
    priority_head_start: Annotated[float, Meta(ge=0, le=3600)] = 30
    prices: dict[str, tuple[Price, Price]] = {}
    metrics_port: Annotated[int, Meta(ge=0, le=65_535)] = 0

    def __repr__(self) -> str:
        return f"Settings(model={self.model!r}, ...)"  # the URLs hold passwords


def variable_of(field: str) -> str:
    """The environment variable that sets a field."""
    name = field.upper()
    return name if name in UNPREFIXED else PREFIX + name


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Read and check the environment.

    Raises `SettingsInvalid` with one line that names the variable and what is allowed.
    """
    values = {
        field: _parse(field, text)
        for field in Settings.__struct_fields__
        if (text := environ.get(variable_of(field), "").strip())
    }
    _require(values)
    values["database_url"] = async_database_url(values["database_url"])
    _check_redis_url(values["redis_url"])
    _check_secrets(values)
    _check_proxies(values)
    try:
        return msgspec.convert(values, Settings, strict=False, dec_hook=_decode_secret)
    except msgspec.ValidationError as error:
        raise SettingsInvalid(_explain(error)) from None


LISTS = {"api_secret", "webhook_secret", "webhook_allowed_hosts", "encryption_keys", "trusted_proxies"}
NOT_UTF8 = re.compile("[\ud800-\udfff]")
CONTROL = re.compile("[\x00-\x1f\x7f]")


def _parse(field: str, text: str) -> Any:
    if NOT_UTF8.search(text):
        raise SettingsInvalid(f"{variable_of(field)}: it is not UTF-8.")
    if field == "prices":
        return _parse_prices(text)
    parts = [part.strip() for part in text.split(",")] if field in LISTS else [text]
    if any(CONTROL.search(part) for part in parts):
        raise SettingsInvalid(f"{variable_of(field)}: it must not hold line breaks or control characters.")
    if field in LISTS:
        return tuple(part for part in parts if part)
    if field.endswith("_base_url"):
        return _base_url(field, text)
    return text.upper() if field == "log_level" else text


def _parse_prices(text: str) -> Any:
    try:
        return msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError) as error:
        raise SettingsInvalid(
            f'LLM_SERVICE_PRICES must be JSON, e.g. {{"openai:my-model": [0.5, 1.5]}} '
            f"(USD per million input and output tokens): {error}"
        ) from None


def _base_url(field: str, text: str) -> str:
    """Without slashes at its end. Credentials belong into the key: as a part of the URL they would be logged."""
    wrong = f"{variable_of(field)} must look like https://host/path, without user and password."
    try:
        url = urlsplit(text)
        is_plain = url.scheme in {"http", "https"} and url.hostname and url.username is None
        _ = url.port  # raises where it is no port
    except ValueError:
        raise SettingsInvalid(wrong) from None
    if not is_plain:
        raise SettingsInvalid(wrong)
    return text.rstrip("/")


REQUIRED = {
    "database_url": "the PostgreSQL to use, e.g. postgresql://user:password@host/database",
    "redis_url": "the Redis to use, e.g. redis://host:6379/0",
    "api_secret": f"the secret that clients send as X-API-Secret, at least {MIN_SECRET} characters",
    "model": "the model to call, e.g. openai:<model>, anthropic:<model>, openrouter:<model> or offline",
}


def _require(values: Mapping[str, Any]) -> None:
    for field, meaning in REQUIRED.items():
        if not values.get(field):
            raise SettingsInvalid(f"{variable_of(field)} is not set: it names {meaning}.")


def _check_secrets(values: Mapping[str, Any]) -> None:
    if any(len(secret) < MIN_SECRET for secret in values["api_secret"]):
        raise SettingsInvalid(f"LLM_SERVICE_API_SECRET: each secret needs at least {MIN_SECRET} characters.")
    _check_passwords(values.get("admin_password", ""), values.get("admin_reader_password", ""))


def _check_passwords(admin: str, reader: str) -> None:
    """Of the queue page. One for readers alone opens nothing, and says so rather than seem to work."""
    for name, password in (("ADMIN_PASSWORD", admin), ("ADMIN_READER_PASSWORD", reader)):
        if 0 < len(password) < MIN_PASSWORD:
            raise SettingsInvalid(f"{PREFIX}{name} needs at least {MIN_PASSWORD} characters.")
    if reader and not admin:
        raise SettingsInvalid(
            "LLM_SERVICE_ADMIN_READER_PASSWORD needs LLM_SERVICE_ADMIN_PASSWORD beside it: that opens the page."
        )
    if reader and reader == admin:
        raise SettingsInvalid(
            "LLM_SERVICE_ADMIN_READER_PASSWORD must differ from LLM_SERVICE_ADMIN_PASSWORD: it is to open less."
        )


def _check_proxies(values: Mapping[str, Any]) -> None:
    """uvicorn takes what is no address for the name of a socket, and trusts nobody."""
    for text in values.get("trusted_proxies", ()):
        try:
            ip_network(text)
        except ValueError:
            raise SettingsInvalid(
                f"LLM_SERVICE_TRUSTED_PROXIES: {text[:50]!r} is no address or network; e.g. 10.0.0.7 or 10.0.0.0/8."
            ) from None


def _decode_secret(wanted: type, value: Any) -> Any:
    if wanted is Secret and isinstance(value, str):
        return Secret(value)
    raise NotImplementedError(wanted)


def _explain(error: msgspec.ValidationError) -> str:
    text, _, path = str(error).partition(" - at `$")
    field = path.strip("`.").split("[")[0].split(".")[0]
    return f"{variable_of(field)}: {text}." if field else f"The settings are wrong: {text}."


SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})
TAKEN_PARAMETERS = frozenset(
    {"host", "port", "user", "password", "ssl", "target_session_attrs", "passfile", "krbsrvname", "gsslib"}
    | {"prepared_statement_cache_size"}
)
IGNORED_PARAMETERS = frozenset(
    {"channel_binding", "connect_timeout", "application_name", "fallback_application_name", "gssencmode"}
    | {"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "sslcompression"}
)
"""What only libpq knows, or what the service sets itself. Any other parameter would fail when it connects."""


def async_database_url(raw: str) -> str:
    """Turn any usual spelling of a PostgreSQL URL into the one asyncpg takes through SQLAlchemy.

    Raises `SettingsInvalid` when it is not a PostgreSQL URL. The message never repeats the URL: it may
    hold a password.
    """
    wrong = "DATABASE_URL must look like postgresql://user:password@host:5432/database."
    try:
        url = make_url(re.sub("^postgres://", "postgresql://", raw))
    except (ArgumentError, ValueError):
        raise SettingsInvalid(wrong) from None
    if url.get_backend_name() != "postgresql" or not 1 <= (url.port or 1) <= 65_535:
        raise SettingsInvalid(wrong)
    query = {name: value for name, value in url.query.items() if name not in IGNORED_PARAMETERS}
    if mode := query.pop("sslmode", None):
        query["ssl"] = mode  # the name asyncpg knows
    if query.get("ssl", "require") not in SSL_MODES:
        raise SettingsInvalid(f"DATABASE_URL: sslmode must be one of: {', '.join(sorted(SSL_MODES))}.")
    if unknown := query.keys() - TAKEN_PARAMETERS:
        raise SettingsInvalid(
            f"DATABASE_URL: the parameter {min(unknown)[:50]!r} is not supported; leave it out"
            " (certificates: set PGSSLROOTCERT, PGSSLCERT and PGSSLKEY)."
        )
    return url.set(drivername="postgresql+asyncpg", query=query).render_as_string(hide_password=False)


def _check_redis_url(raw: str) -> None:
    """Both clients of this process would say the same later, in words of their own and with the URL."""
    try:
        is_redis = _is_redis_url(raw)
    except ValueError:
        is_redis = False
    if not is_redis:
        raise SettingsInvalid(
            "REDIS_URL must look like redis://user:password@host:6379/0, rediss://... or unix:///path?db=0."
        )


def _is_redis_url(raw: str) -> bool:
    url = urlsplit(raw)
    numbers = parse_qs(url.query).get("db", [])
    if url.scheme == "unix":
        has_place = len(url.path) > 1
    else:
        has_place = url.scheme in {"redis", "rediss"} and url.port != 0
        numbers = [*numbers, url.path.strip("/") or "0"]
    return (
        raw.startswith(f"{url.scheme}://") and has_place and all(re.fullmatch("[0-9]+", n) for n in numbers)
    )


@functools.cache
def documented() -> dict[str, str]:
    """Every variable and its default as text, for the documentation and the test that holds it to the code."""
    fields = msgspec.structs.fields(Settings)
    return {variable_of(f.name): "required" if f.required else repr(f.default) for f in fields}
