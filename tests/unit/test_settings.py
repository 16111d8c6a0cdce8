"""The environment as a value: what is accepted, and one line naming the variable for what is not."""

import logging
import re

import msgspec
import pytest
from sqlalchemy.engine import make_url

from llm_service.errors import SettingsInvalid
from llm_service.settings import (
    REQUIRED,
    Secret,
    Settings,
    async_database_url,
    documented,
    load_settings,
    variable_of,
)

CANARY = "hunter2canary"
LEAST = {
    "DATABASE_URL": f"postgresql://app:{CANARY}@db.example:5432/jobs",
    "REDIS_URL": f"redis://:{CANARY}@cache.example:6379/0",
    "LLM_SERVICE_API_SECRET": "0123456789abcdef",
    "LLM_SERVICE_MODEL": "offline",
}


def refused(**environment: str) -> str:
    """The line that refuses these settings."""
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(LEAST | environment)
    assert "\n" not in caught.value.message
    assert CANARY not in caught.value.message
    assert caught.value.__cause__ is None
    return caught.value.message


# --- required ---------------------------------------------------------------------------------------------


def test_the_least_is_enough() -> None:
    settings = load_settings(LEAST | {"UNRELATED": "x", "LLM_SERVICE_UNKNOWN": "y"})
    assert (settings.port, settings.host, settings.model) == (8000, "127.0.0.1", "offline")


def test_what_is_required_is_required() -> None:
    assert {variable_of(field) for field in REQUIRED} == set(LEAST)
    assert {name for name, default in documented().items() if default == "required"} == set(LEAST)


@pytest.mark.parametrize("variable", LEAST)
@pytest.mark.parametrize("value", [None, "", "   ", "\n"])
def test_a_missing_or_empty_one_is_named(variable: str, value: str | None) -> None:
    environment = {name: text for name, text in LEAST.items() if name != variable}
    if value is not None:
        environment[variable] = value
    with pytest.raises(SettingsInvalid, match=f"^{variable} is not set"):
        load_settings(environment)


@pytest.mark.parametrize("variable", sorted(set(documented()) - set(LEAST)))
def test_an_empty_optional_one_is_its_default(variable: str) -> None:
    assert msgspec.structs.asdict(load_settings(LEAST | {variable: "  "})).keys()
    [field] = [field for field in Settings.__struct_fields__ if variable_of(field) == variable]
    assert getattr(load_settings(LEAST | {variable: "  "}), field) == getattr(load_settings(LEAST), field)


# --- secrets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["short", "x" * 15, "0123456789abcdef,short", "ž" * 15])
def test_s02_a_secret_under_16_characters_is_refused_and_not_repeated(secret: str) -> None:
    message = refused(LLM_SERVICE_API_SECRET=secret)
    assert message.startswith("LLM_SERVICE_API_SECRET")
    assert "16" in message
    assert secret not in message


def test_several_secrets_are_split_at_commas() -> None:
    settings = load_settings(LEAST | {"LLM_SERVICE_API_SECRET": " first-0123456789 ,, second-0123456789,"})
    assert [secret.reveal() for secret in settings.api_secret] == ["first-0123456789", "second-0123456789"]


def test_s02_commas_alone_are_no_secret() -> None:
    assert refused(LLM_SERVICE_API_SECRET=", ,").startswith("LLM_SERVICE_API_SECRET is not set")


@pytest.mark.parametrize(
    "variable",
    ["LLM_SERVICE_API_SECRET", "OPENAI_API_KEY", "LLM_SERVICE_WEBHOOK_SECRET", "LLM_SERVICE_MODEL", "HOST"],
)
@pytest.mark.parametrize("inside", ["\n", "\r", "\x00", "\x1b", "\udcff"])
def test_a_control_character_is_refused(variable: str, inside: str) -> None:
    message = refused(**{variable: f"{CANARY}{inside}0123456789abcdef"})
    assert message.startswith(f"{variable}: ")


def test_a_secret_shows_itself_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(CANARY)
    logging.getLogger("test").warning("%s %r", secret, {"a": [secret]})
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>20}",
        f"{secret}",
        repr([secret]),
        caplog.text,
    ]
    shown += [f"{secret:}", "{}".format(secret), "%s" % secret]  # noqa: UP031, UP032 - other ways to print
    for text in shown:
        assert CANARY not in text
        assert "***" in text
    with pytest.raises((TypeError, NotImplementedError)):
        msgspec.json.encode({"secret": secret})
    assert not hasattr(secret, "__dict__")
    assert secret.reveal() == CANARY


def test_s48_settings_show_no_secret() -> None:
    secrets = (
        "LLM_SERVICE_API_SECRET",
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "OPENROUTER_API_KEY",
        "LLM_SERVICE_WEBHOOK_SECRET",
        "LLM_SERVICE_ADMIN_PASSWORD",
        "LLM_SERVICE_ADMIN_READER_PASSWORD",
        "LLM_SERVICE_ENCRYPTION_KEYS",
    )
    settings = load_settings(LEAST | {name: f"{CANARY}{name}" for name in secrets})
    assert CANARY not in repr(settings)
    assert CANARY not in str(settings)


# --- numbers and choices ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("PORT", "80.5"),
        ("PORT", "9" * 5000),
        ("LOG_LEVEL", "LOUD"),
        ("LLM_SERVICE_LOG_FORMAT", "xml"),
        ("LLM_SERVICE_WORKER_CONCURRENCY", "0"),
        ("LLM_SERVICE_WORKER_CONCURRENCY", "-5"),
        ("LLM_SERVICE_WORKER_CONCURRENCY", "ten"),
        ("LLM_SERVICE_WEBHOOK_CONCURRENCY", "1e9"),
        ("LLM_SERVICE_API_PROCESSES", "65"),
        ("LLM_SERVICE_JOB_TIMEOUT", "0"),
        ("LLM_SERVICE_JOB_TIMEOUT", "nan"),
        ("LLM_SERVICE_JOB_TIMEOUT", "inf"),
        ("LLM_SERVICE_JOB_TIMEOUT", "5 min"),
        ("LLM_SERVICE_CALL_TIMEOUT", "-1"),
        ("LLM_SERVICE_MAX_ATTEMPTS", "101"),
        ("LLM_SERVICE_LEASE", "0.5"),
        ("LLM_SERVICE_METRICS_PORT", "-1"),
    ],
)
def test_a_wrong_value_names_its_variable(variable: str, value: str) -> None:
    assert refused(**{variable: value}).startswith(f"{variable}: ")


def test_numbers_and_choices_are_read() -> None:
    settings = load_settings(
        LEAST
        | {
            "PORT": " 9000 ",
            "LOG_LEVEL": "debug",
            "LLM_SERVICE_JOB_TIMEOUT": "1.5",
            "LLM_SERVICE_MAX_ATTEMPTS": "1",
        }
    )
    assert (settings.port, settings.log_level) == (9000, "DEBUG")
    assert (settings.job_timeout, settings.max_attempts) == (1.5, 1)


def test_lists_are_split_at_commas() -> None:
    settings = load_settings(LEAST | {"LLM_SERVICE_WEBHOOK_ALLOWED_HOSTS": " a.example , b.example:8080,"})
    assert settings.webhook_allowed_hosts == ("a.example", "b.example:8080")
    assert load_settings(LEAST).webhook_allowed_hosts == ()


def test_every_variable_is_documented_once() -> None:
    assert len(documented()) == len(Settings.__struct_fields__)
    assert all(re.fullmatch(r"[A-Z_]+", name) for name in documented())


# --- prices -----------------------------------------------------------------------------------------------


def test_prices_are_a_map_of_pairs() -> None:
    settings = load_settings(LEAST | {"LLM_SERVICE_PRICES": '{"openai:m": [0.5, 2]}'})
    assert settings.prices == {"openai:m": (0.5, 2.0)}


def test_prices_may_be_written_over_several_lines() -> None:
    settings = load_settings(LEAST | {"LLM_SERVICE_PRICES": '{\n  "openai:m": [0, 0]\n}'})
    assert settings.prices == {"openai:m": (0.0, 0.0)}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "3",
        '"x"',
        '{"m": 1}',
        '{"m": [1]}',
        '{"m": [1, 2, 3]}',
        '{"m": ["a", "b"]}',
        '{"m": [-1, 0]}',
        '{"m": [NaN, 0]}',
        '{"m": [1e300, 0]}',
        "\udcff",
        '{"\udcff": [1, 2]}',
        "[" * 5000,
    ],
)
def test_wrong_prices_name_the_variable(text: str) -> None:
    assert refused(LLM_SERVICE_PRICES=text).startswith("LLM_SERVICE_PRICES")


# --- URLs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    [
        "postgres://app:p%40ss@db.example:5433/jobs",
        "postgresql://app:p%40ss@db.example:5433/jobs",
        "postgresql+asyncpg://app:p%40ss@db.example:5433/jobs",
        "postgresql+psycopg://app:p%40ss@db.example:5433/jobs",
        "  postgres://app:p%40ss@db.example:5433/jobs\n",
    ],
)
def test_every_usual_spelling_is_one_url(spelling: str) -> None:
    url = make_url(load_settings(LEAST | {"DATABASE_URL": spelling}).database_url)
    assert url.drivername == "postgresql+asyncpg"
    assert (url.username, url.password, url.host, url.port, url.database) == (
        "app",
        "p@ss",
        "db.example",
        5433,
        "jobs",
    )


def test_a_password_that_looks_like_a_scheme_is_left_alone() -> None:
    url = make_url(async_database_url("postgresql://app:postgres%3A%2F%2F@h/db"))
    assert url.password == "postgres://"


def test_the_socket_form_keeps_its_directory() -> None:
    url = make_url(async_database_url("postgresql://llm@/db?host=/run/pg&port=5432"))
    assert (url.username, url.host, url.database) == ("llm", None, "db")
    assert dict(url.query) == {"host": "/run/pg", "port": "5432"}


@pytest.mark.parametrize("mode", ["disable", "prefer", "require", "verify-full"])
def test_sslmode_is_said_as_asyncpg_says_it(mode: str) -> None:
    url = make_url(async_database_url(f"postgres://u:p@h/db?sslmode={mode}&channel_binding=require"))
    assert dict(url.query) == {"ssl": mode}


@pytest.mark.parametrize(
    "parameter", ["connect_timeout=10", "application_name=x", "keepalives=1", "gssencmode=disable"]
)
def test_what_only_libpq_knows_is_left_out(parameter: str) -> None:
    assert dict(make_url(async_database_url(f"postgresql://h/db?{parameter}")).query) == {}


@pytest.mark.parametrize(
    "parameter", ["sslmode=bogus", "sslrootcert=/x", "options=-csearch_path%3Dx", "typo=1", "ssl=maybe"]
)
def test_a_parameter_that_would_fail_later_is_named_now(parameter: str) -> None:
    message = refused(DATABASE_URL=f"postgresql://u:{CANARY}@h/db?{parameter}")
    assert message.startswith("DATABASE_URL")
    assert parameter.split("=", maxsplit=1)[0] in message


@pytest.mark.parametrize(
    "url",
    [
        CANARY,
        f"mysql://u:{CANARY}@h/db",
        f"sqlite:///{CANARY}",
        f"postgresqlx://u:{CANARY}@h/db",
        f"postgresql://u:{CANARY}@h:port/db",
        f"postgresql://u:{CANARY}@h:99999/db",
        f"postgresql://u:{CANARY}@[::1/db",
        f"postgresql:/u:{CANARY}@h/db",
        f"http://u:{CANARY}@h/db",
        f"://{CANARY}",
    ],
)
def test_what_is_no_postgresql_url_is_refused_and_not_repeated(url: str) -> None:
    assert refused(DATABASE_URL=url).startswith("DATABASE_URL must look like postgresql://")


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h:6379",
        "redis://h:6379/",
        "rediss://user:pass@h:6380/3",
        "redis://[::1]:6379/0?db=2",
        "redis://h/0?protocol=3",
        "unix:///run/redis.sock?db=1",
        "unix://user:pass@/run/redis.sock",
    ],
)
def test_every_usual_redis_url_is_taken_as_it_is(url: str) -> None:
    assert load_settings(LEAST | {"REDIS_URL": url}).redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        CANARY,
        "localhost:6379",
        f"http://:{CANARY}@h:6379/0",
        f"redis:/:{CANARY}@h:6379/0",
        f"redis://:{CANARY}@h:port/0",
        f"redis://:{CANARY}@h:99999/0",
        f"redis://:{CANARY}@[::1/0",
        f"redis://:{CANARY}@h/jobs",
        f"redis://:{CANARY}@h/0/1",
        f"redis://:{CANARY}@h/0?db=x",
        f"unix://:{CANARY}@",
    ],
)
def test_what_is_no_redis_url_is_refused_and_not_repeated(url: str) -> None:
    assert refused(REDIS_URL=url).startswith("REDIS_URL must look like redis://")


@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "OPENROUTER_BASE_URL"])
def test_a_base_url_is_a_plain_http_url(variable: str) -> None:
    field = variable.lower()
    given = load_settings(LEAST | {variable: "http://[::1]:11434/v1//"})
    assert getattr(given, field) == "http://[::1]:11434/v1"
    for url in (
        "localhost:11434",
        "ftp://h/v1",
        "http://",
        "http://h:port",
        f"http://u:{CANARY}@h/v1",
        "http://[::1",
    ):
        assert refused(**{variable: url}).startswith(f"{variable} must look like https://")
