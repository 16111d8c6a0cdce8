"""The two signatures, checked by the reference library and by hand."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from llm_service.webhooks.signing import signature_headers

BODY = '{"event":"workflow.completed","username":"Žofie 😀"}'.encode()
SECRETS = ["plainsecret", "plain-secret, not base64!", "whsec_" + base64.b64encode(b"k" * 24).decode()]


def verify(secret: str, body: bytes, headers: dict[str, str]) -> None:
    key: str | bytes = secret if secret.startswith("whsec_") else secret.encode()
    Webhook(key).verify(body.decode(), headers)


@pytest.mark.parametrize("secret", SECRETS)
def test_the_reference_library_verifies(secret: str) -> None:
    headers = signature_headers(secret, "msg_1", datetime.now(UTC), BODY)
    verify(secret, BODY, headers)
    for spoilt_body, spoilt_headers in [
        (BODY.replace(b"completed", b"compleTed"), headers),
        (BODY, headers | {"webhook-id": "msg_2"}),
        (BODY, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}),
    ]:
        with pytest.raises(WebhookVerificationError):
            verify(secret, spoilt_body, spoilt_headers)


@pytest.mark.parametrize("secret", SECRETS)
def test_the_existing_receivers_header_is_hmac_sha256_of_the_raw_body(secret: str) -> None:
    headers = signature_headers(secret, "msg_1", datetime.now(UTC), BODY)
    expected = hmac.new(secret.encode(), BODY, hashlib.sha256).hexdigest()
    assert headers["X-Webhook-Signature"] == f"sha256={expected}"


@pytest.mark.parametrize("secret", [None, ""])
def test_without_a_secret_there_is_no_signature(secret: str | None) -> None:
    headers = signature_headers(secret, "msg_1", datetime(2026, 1, 2, tzinfo=UTC), BODY)
    assert headers == {"webhook-id": "msg_1", "webhook-timestamp": "1767312000"}
