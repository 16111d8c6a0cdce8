"""`llm-service run`: everything on one machine, for a first look and for development."""

import json
import os
import secrets
import socket
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from cryptography.fernet import Fernet

from llm_service.devstack import ChildSpec, DevstackError, start_servers, supervise
from llm_service.errors import SettingsInvalid
from llm_service.migrations import project_root, upgrade
from llm_service.settings import load_settings

LOCAL_HOSTS = "localhost,127.0.0.1,::1"
READY_WITHIN_S = 2.0


def run_everything(environ: Mapping[str, str]) -> int:
    """Start, keep alive, and stop on Ctrl-C. The exit code: 0 after Ctrl-C, 2 for what is set wrongly."""
    started = time.monotonic()
    state_dir = Path(environ.get("LLM_SERVICE_STATE_DIR") or project_root() / ".state")
    given_database, given_redis = environ.get("DATABASE_URL") or None, environ.get("REDIS_URL") or None
    try:
        servers = start_servers(state_dir, database_url=given_database, redis_url=given_redis)
    except DevstackError as error:
        raise SettingsInvalid(str(error)) from error
    with servers:
        environment = compose_environment(environ, state_dir, servers.database_url, servers.redis_url)
        settings = load_settings(environment)
        refuse_taken_port(settings.host, settings.port)
        upgrade(servers.database_url)
        base = f"http://{settings.host}:{settings.port}"
        command = [sys.executable, "-m", "llm_service"]
        return supervise(
            [
                ChildSpec(
                    name="API",
                    argv=[*command, "api"],
                    env=environment,
                    ready=lambda: answers(f"{base}/health"),
                    fatal_exit_codes={2},
                ),
                ChildSpec(name="worker", argv=[*command, "worker"], env=environment, fatal_exit_codes={2}),
            ],
            keep=servers.children,
            on_line=say,
            on_ready=lambda: say(screen(base, environment, time.monotonic() - started)),
        )


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)  # noqa: T201


def compose_environment(
    environ: Mapping[str, str], state_dir: Path, database_url: str, redis_url: str
) -> dict[str, str]:
    """What the children get: what was given, and defaults that hold here and nowhere else."""
    made = keep_secrets(state_dir / "secrets.json")
    hosts = environ.get("LLM_SERVICE_WEBHOOK_ALLOWED_HOSTS", "")
    defaults = {
        "PORT": "8000",
        "HOST": "127.0.0.1",
        "LLM_SERVICE_MODEL": "offline",
        **made,
    }
    return {
        **environ,
        **{name: value for name, value in defaults.items() if not environ.get(name)},
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "LLM_SERVICE_WEBHOOK_ALLOWED_HOSTS": f"{hosts},{LOCAL_HOSTS}" if hosts else LOCAL_HOSTS,
    }


def keep_secrets(path: Path) -> dict[str, str]:
    """The secrets of this state directory, made once and readable by their owner alone."""
    if path.exists():
        kept: dict[str, str] = json.loads(path.read_text())
        return kept
    made = {
        "LLM_SERVICE_API_SECRET": secrets.token_urlsafe(24),
        "LLM_SERVICE_ADMIN_PASSWORD": secrets.token_urlsafe(12),
        "LLM_SERVICE_WEBHOOK_SECRET": secrets.token_urlsafe(24),
        "LLM_SERVICE_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
    }
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(made, file, indent=1)
    return made


def refuse_taken_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsInvalid(
                f"PORT {port} on {host} can't be used ({error.strerror}); choose another, e.g. PORT={port + 1} make run"
            ) from None


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=READY_WITHIN_S) as response:  # noqa: S310 - our own address
            return bool(response.status == 200)
    except OSError:
        return False


def screen(base: str, environment: Mapping[str, str], seconds: float) -> str:
    secret = environment["LLM_SERVICE_API_SECRET"].split(",")[0]
    model = environment["LLM_SERVICE_MODEL"]
    note = "deterministic, no network: set LLM_SERVICE_MODEL for a real one" if model == "offline" else "real"
    return f"""
llm-service is ready after {seconds:.1f} s. Ctrl-C stops all of it.

  API             {base}/api/v1      (OpenAPI: {base}/schema/openapi.json, health: {base}/health)
  API secret      {secret}
  LLM Queue       {base}/admin       (password: {environment["LLM_SERVICE_ADMIN_PASSWORD"]})
  Webhook secret  {environment["LLM_SERVICE_WEBHOOK_SECRET"].split(",")[0]}
  Model           {model} ({note})

Submit a first job, and look at it:

  curl -s {base}/api/v1/workflow -H "X-API-Secret: {secret}" -H "Content-Type: application/json" -d '{{
    "workflow_name": "emergency_contacts", "username": "jane_smith", "action": "generate contacts",
    "input_data": {{"location": "Brno", "scenarios": ["flood"],
      "notes": "My sister Anna Novak (+420 777 123 456) lives in Brno. We meet at the library on Main Street."}}}}'

  curl -s "{base}/api/v1/jobs?limit_results=Today" -H "X-API-Secret: {secret}"
"""
