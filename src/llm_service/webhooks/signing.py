"""The two signatures of a webhook: Standard Webhooks, and the header that existing receivers check. Pure."""

import hashlib
import hmac
from datetime import datetime

from standardwebhooks import Webhook


def signature_headers(secret: str | None, webhook_id: str, moment: datetime, body: bytes) -> dict[str, str]:
    """Headers of one try. `moment` is timezone-aware; `body` is exactly what is sent.

    A secret that begins with `whsec_` is base64 after that, as Standard Webhooks has it; any other is taken
    as plain text. Without a secret the message carries its id and time, and no signature.
    """
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(int(moment.timestamp()))}
    if not secret:
        return headers
    # The library would take any text for base64 and sign with what comes of it: plain secrets go in as bytes.
    key: str | bytes = secret if secret.startswith("whsec_") else secret.encode()
    headers["webhook-signature"] = Webhook(key).sign(webhook_id, moment, body.decode())
    headers["X-Webhook-Signature"] = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return headers
