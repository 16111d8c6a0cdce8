"""The two signatures of a webhook: Standard Webhooks, and the header that existing receivers check. Pure."""

import base64
import hashlib
import hmac
from datetime import datetime

from standardwebhooks import Webhook

from llm_service.errors import ServiceError

PREFIX = "whsec_"


class UnusableSecret(ServiceError):
    """A secret that begins with whsec_ and is not base64 after that."""


def check_secret(secret: str) -> None:
    """Raise `UnusableSecret` for a secret that nothing could be signed with."""
    if not secret.startswith(PREFIX):
        return
    try:
        if base64.b64decode(secret.removeprefix(PREFIX), validate=True):
            return
    except ValueError:
        pass
    raise UnusableSecret("must be base64 after whsec_; any other secret is taken as plain text")


def signature_headers(secrets: list[str], webhook_id: str, moment: datetime, body: bytes) -> dict[str, str]:
    """Headers of one try. `moment` is timezone-aware; `body` is exactly what is sent.

    A secret that begins with `whsec_` is base64 after that, as Standard Webhooks has it; any other is taken
    as plain text. While secrets are being changed there are several, the newest first: `webhook-signature`
    holds one value for each, `X-Webhook-Signature`, which is compared whole, the newest alone. Without a
    secret the message carries its id and time, and no signature.
    """
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(int(moment.timestamp()))}
    if not secrets:
        return headers
    text = body.decode()
    signatures = [_webhook(secret).sign(webhook_id, moment, text) for secret in secrets]
    headers["webhook-signature"] = " ".join(signatures)
    newest = hmac.new(secrets[0].encode(), body, hashlib.sha256).hexdigest()
    headers["X-Webhook-Signature"] = f"sha256={newest}"
    return headers


def _webhook(secret: str) -> Webhook:
    check_secret(secret)
    # The library would take any text for base64 and sign with what comes of it: plain secrets go in as bytes.
    return Webhook(secret if secret.startswith(PREFIX) else secret.encode())
