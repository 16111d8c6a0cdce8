"""Every setting of both processes, read once from the environment and checked; a wrong one names itself.

Usual names keep their usual meaning (DATABASE_URL, REDIS_URL, ...); ours begin with LLM_SERVICE_.
"""

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

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

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=100_000)]


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
    webhook_secret: Secret | None = None
    webhook_allowed_hosts: tuple[str, ...] = ()
    encryption_keys: tuple[Secret, ...] = ()
    admin_password: Secret | None = None
    worker_concurrency: Count = 100
    webhook_concurrency: Count = 32
    api_processes: Annotated[int, Meta(ge=1, le=64)] = 1
    job_timeout: Seconds = 300
    call_timeout: Seconds = 120
    max_attempts: Annotated[int, Meta(ge=1, le=100)] = 3
    shutdown_grace: Seconds = 25
    lease: Annotated[float, Meta(ge=1, le=3600)] = 20
    priority_head_start: Annotated[float, Meta(ge=0, le=3600)] = 30
    prices: dict[str, tuple[float, float]] = {}
    metrics_port: Annotated[int, Meta(ge=0, le=65_535)] = 0


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
    _check_secrets(values)
    try:
        return msgspec.convert(values, Settings, strict=False, dec_hook=_decode_secret)
    except msgspec.ValidationError as error:
        raise SettingsInvalid(_explain(error)) from None


LISTS = {"api_secret", "webhook_allowed_hosts", "encryption_keys"}


def _parse(field: str, text: str) -> Any:
    if field in LISTS:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if field == "log_level":
        return text.upper()
    if field == "prices":
        try:
            return msgspec.json.decode(text.encode())
        except msgspec.DecodeError as error:
            raise SettingsInvalid(
                f'LLM_SERVICE_PRICES must be JSON, e.g. {{"openai:my-model": [0.5, 1.5]}} '
                f"(USD per million input and output tokens): {error}"
            ) from None
    return text


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


def _decode_secret(wanted: type, value: Any) -> Any:
    if wanted is Secret and isinstance(value, str):
        return Secret(value)
    raise NotImplementedError(wanted)


def _explain(error: msgspec.ValidationError) -> str:
    text, _, path = str(error).partition(" - at `$")
    field = path.strip("`.").split("[")[0].split(".")[0]
    return f"{variable_of(field)}: {text}." if field else f"The settings are wrong: {text}."


def async_database_url(raw: str) -> str:
    """Turn any usual spelling of a PostgreSQL URL into the one asyncpg takes through SQLAlchemy.

    Raises `SettingsInvalid` when it is not a PostgreSQL URL. The message never repeats the URL: it may
    hold a password.
    """
    wrong = "DATABASE_URL must look like postgresql://user:password@host:5432/database."
    try:
        url = make_url(raw.replace("postgres://", "postgresql://", 1))
    except (ArgumentError, ValueError):
        raise SettingsInvalid(wrong) from None
    if not url.drivername.startswith("postgresql"):
        raise SettingsInvalid(wrong)
    query = dict(url.query)
    if mode := query.pop("sslmode", None):
        query["ssl"] = mode  # the name asyncpg knows
    query.pop("channel_binding", None)  # libpq's alone
    return url.set(drivername="postgresql+asyncpg", query=query).render_as_string(hide_password=False)


@functools.cache
def documented() -> dict[str, str]:
    """Every variable and its default as text, for the documentation and the test that holds it to the code."""
    fields = msgspec.structs.fields(Settings)
    return {variable_of(f.name): "required" if f.required else repr(f.default) for f in fields}
