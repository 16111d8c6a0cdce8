"""Reads the prompts, markdown files beside the workflows: always a system message, never a template."""

from functools import cache
from importlib.resources import files


@cache
def read_prompt(name: str) -> str:
    """Return the text of `<name>.md`; FileNotFoundError when there is none."""
    return files(__package__).joinpath(f"{name}.md").read_text(encoding="utf-8").strip()
