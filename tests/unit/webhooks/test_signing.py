"""The two signatures, checked by the reference library and by hand."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from llm_service.webhooks.signing import UnusableSecret, check_secret, signature_headers

BODY = '{"event":"workflow.completed","username":"Žofie 😀"}'.encode()
SECRETS = ["plainsecret", "plain-secret, not base64!", "whsec_" + base64.b64encode(b"k" * 24).decode()]


def verify(secret: str, body: bytes, headers: dict[str, str]) -> None:
    key: str | bytes = secret if secret.startswith("whsec_") else secret.encode()
    Webhook(key).verify(body.decode(), headers)


@pytest.mark.parametrize("secret", SECRETS)
def test_s15_the_reference_library_verifies(secret: str) -> None:
    headers = signature_headers([secret], "msg_1", datetime.now(UTC), BODY)
    verify(secret, BODY, headers)
    for spoilt_body, spoilt_headers in [
        (BODY.replace(b"completed", b"compleTed"), headers),
        (BODY, headers | {"webhook-id": "msg_2"}),
        (BODY, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}),
    ]:
        with pytest.raises(WebhookVerificationError):
            verify(secret, spoilt_body, spoilt_headers)


@pytest.mark.parametrize("rest", ["", "!!!", "A", "AAAA\n", " AAAA", "ž", "\x00", "é" * 40, "-_-_"])
def test_what_is_no_base64_after_whsec_is_no_secret(rest: str) -> None:
    with pytest.raises(UnusableSecret, match="must be base64"):
        check_secret("whsec_" + rest)


@pytest.mark.parametrize("secret", SECRETS)
def test_the_existing_receivers_header_is_hmac_sha256_of_the_raw_body(secret: str) -> None:
    headers = signature_headers([secret], "msg_1", datetime.now(UTC), BODY)
    expected = hmac.new(secret.encode(), BODY, hashlib.sha256).hexdigest()
    assert headers["X-Webhook-Signature"] == f"sha256={expected}"


def test_s19_without_a_secret_there_is_no_signature() -> None:
    headers = signature_headers([], "msg_1", datetime(2026, 1, 2, tzinfo=UTC), BODY)
    assert headers == {"webhook-id": "msg_1", "webhook-timestamp": "1767312000"}


def test_s18_while_secrets_change_there_is_a_signature_for_each_and_the_newest_alone_in_the_existing_header() -> (
    None
):
    headers = signature_headers(SECRETS, "msg_1", datetime.now(UTC), BODY)
    assert [part[:3] for part in headers["webhook-signature"].split(" ")] == ["v1,"] * 3
    for secret in SECRETS:
        verify(secret, BODY, headers)
    with pytest.raises(WebhookVerificationError):
        verify("another secret", BODY, headers)
    newest = hmac.new(SECRETS[0].encode(), BODY, hashlib.sha256).hexdigest()
    assert headers["X-Webhook-Signature"] == f"sha256={newest}"
