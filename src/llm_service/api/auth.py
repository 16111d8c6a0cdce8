"""The X-API-Secret guard: everything below /api/v1 needs one of the configured secrets, routes or not."""

import hmac
from collections.abc import Iterable, Sequence

from llm_service.settings import Secret

HEADER = b"x-api-secret"
GUARDED = "/api/v1"


class SecretCheck:
    def __init__(self, secrets: Sequence[Secret]) -> None:
        self._secrets = [secret.reveal().encode() for secret in secrets]

    def passes(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether exactly one secret was sent and it is ours. Compares with every secret, in constant time each."""
        sent = [value for name, value in headers if name == HEADER]
        if len(sent) != 1:
            return False
        matches = [hmac.compare_digest(sent[0], secret) for secret in self._secrets]
        return any(matches)


def is_guarded(path: str) -> bool:
    """Whether a path needs the secret, in whatever spelling: doubled slashes and case do not open a door."""
    squeezed = "/" + "/".join(part for part in path.lower().split("/") if part not in {"", "."})
    return squeezed == GUARDED or squeezed.startswith(GUARDED + "/")
