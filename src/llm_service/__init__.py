"""Durable LLM workflows over HTTP: accepted once, run once, reported once."""

from importlib.metadata import version

__version__ = version("llm-service")
