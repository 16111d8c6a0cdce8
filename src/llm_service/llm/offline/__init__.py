"""The offline model: no intelligence and no network, but real work on what the caller sent."""

from llm_service.llm.offline.model import OfflineModel

__all__ = ["OfflineModel"]
