"""Runs alembic from inside the service, wherever it is started from."""

import os
from pathlib import Path

from alembic import command
from alembic.config import Config

from llm_service.errors import SettingsInvalid


def project_root() -> Path:
    """The directory with pyproject.toml and alembic/: that of the checkout, else the current one."""
    for candidate in (*Path(__file__).resolve().parents, Path.cwd()):
        if (candidate / "alembic" / "env.py").is_file() and (candidate / "pyproject.toml").is_file():
            return candidate
    raise SettingsInvalid(
        "The migrations are not here: start in the directory that holds pyproject.toml and alembic/."
    )


def upgrade(database_url: str) -> None:
    """Bring the database to the newest schema."""
    os.environ["DATABASE_URL"] = database_url
    command.upgrade(_config(), "head")


def downgrade_one(database_url: str) -> None:
    """Take the newest migration back."""
    os.environ["DATABASE_URL"] = database_url
    command.downgrade(_config(), "-1")


def _config() -> Config:
    return Config(toml_file=project_root() / "pyproject.toml")
