"""Webhook secrets at rest: sealed with Fernet when LLM_SERVICE_ENCRYPTION_KEYS is set, several keys to rotate."""

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from llm_service.errors import SettingsInvalid
from llm_service.settings import Secret
from llm_service.webhooks.signing import UnusableSecret, check_secret


def check_service_secrets(secrets: Sequence[Secret]) -> None:
    """Raise `SettingsInvalid` for a service-wide webhook secret that nothing could be signed with."""
    try:
        for secret in secrets:
            check_secret(secret.reveal())
    except UnusableSecret as error:
        raise SettingsInvalid(f"LLM_SERVICE_WEBHOOK_SECRET {error.message}.") from None


SEALED = "fernet:"
"""Marks a sealed secret, so that plain ones from before a key was set stay readable."""
PLAIN = "plain:"
"""Marks a secret kept plain that itself begins like a mark."""


class SecretBox:
    """Seals with the first key, opens with any of them. Without keys it keeps secrets as they are."""

    def __init__(self, keys: Sequence[Secret]) -> None:
        try:
            self._fernet = MultiFernet([Fernet(key.reveal()) for key in keys]) if keys else None
        except ValueError:
            raise SettingsInvalid(
                "LLM_SERVICE_ENCRYPTION_KEYS must be Fernet keys: 32 bytes in url-safe base64, comma-separated."
            ) from None

    def seal(self, secret: str | None) -> str | None:
        if secret is None:
            return None
        if self._fernet is None:
            return PLAIN + secret if secret.startswith((SEALED, PLAIN)) else secret
        return SEALED + self._fernet.encrypt(secret.encode()).decode()

    def open(self, stored: str | None) -> str | None:
        """Raises `SettingsInvalid` when the secret was sealed with a key that is not configured."""
        if stored is None or not stored.startswith(SEALED):
            return stored.removeprefix(PLAIN) if stored is not None else None
        try:
            if self._fernet is not None:
                return self._fernet.decrypt(stored.removeprefix(SEALED)).decode()
        except InvalidToken:
            pass
        raise SettingsInvalid("LLM_SERVICE_ENCRYPTION_KEYS holds no key that opens a stored webhook secret.")
