"""Webhook secrets at rest: sealed with the first key, opened with any, plain without keys."""

import pytest
from cryptography.fernet import Fernet
from hypothesis import example, given
from hypothesis import strategies as st

from llm_service.errors import SettingsInvalid
from llm_service.jobs.secrets import SecretBox
from llm_service.settings import Secret

OLD, NEW, OTHER = (Secret(Fernet.generate_key().decode()) for _ in range(3))
SECRETS = st.text(st.characters(exclude_categories=["Cs"]), max_size=255)


def sealed(box: SecretBox, secret: str) -> str:
    stored = box.seal(secret)
    assert stored is not None
    return stored


@given(SECRETS)
@example("")
@example("fernet:")
@example("fernet:gAAAAA")
@example("plain:x")
@example("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
def test_what_is_sealed_opens_with_and_without_keys(secret: str) -> None:
    for box in (SecretBox([NEW]), SecretBox([])):
        assert box.open(sealed(box, secret)) == secret


@given(SECRETS)
@example("fernet:gAAAAA")
def test_what_was_stored_plain_opens_when_keys_come(secret: str) -> None:
    assert SecretBox([NEW]).open(sealed(SecretBox([]), secret)) == secret


def test_s20_a_sealed_secret_does_not_show_and_never_looks_the_same() -> None:
    box = SecretBox([NEW])
    first, second = sealed(box, "hunter2-hunter2"), sealed(box, "hunter2-hunter2")
    assert first != second
    assert "hunter2" not in first


def test_without_a_key_it_is_kept_as_it_is() -> None:
    assert SecretBox([]).seal("hunter2") == "hunter2"


def test_no_secret_stays_none() -> None:
    for box in (SecretBox([]), SecretBox([NEW])):
        assert box.seal(None) is None
        assert box.open(None) is None


def test_rotation_seals_with_the_first_key_and_opens_with_each() -> None:
    before = sealed(SecretBox([OLD]), "hunter2")
    rotating = SecretBox([NEW, OLD])
    assert rotating.open(before) == "hunter2"
    after = sealed(rotating, "hunter2")
    assert SecretBox([NEW]).open(after) == "hunter2"
    with pytest.raises(SettingsInvalid):
        SecretBox([OLD]).open(after)


@pytest.mark.parametrize("keys", [[OTHER], [OTHER, OLD], []])
def test_a_secret_without_its_key_says_which_setting_is_missing(keys: list[Secret]) -> None:
    stored = sealed(SecretBox([NEW]), "hunter2")
    with pytest.raises(SettingsInvalid, match="LLM_SERVICE_ENCRYPTION_KEYS") as caught:
        SecretBox(keys).open(stored)
    assert stored not in caught.value.message


def test_a_tampered_secret_does_not_open() -> None:
    stored = sealed(SecretBox([NEW]), "hunter2")
    with pytest.raises(SettingsInvalid):
        SecretBox([NEW]).open(stored[:-4] + "AAA=")


@pytest.mark.parametrize("key", ["short", "x" * 44, "ž" * 44, "=" * 44, "A" * 45])
def test_a_wrong_key_names_the_setting_and_does_not_repeat_itself(key: str) -> None:
    for keys in ([Secret(key)], [NEW, Secret(key)]):
        with pytest.raises(SettingsInvalid, match="LLM_SERVICE_ENCRYPTION_KEYS") as caught:
            SecretBox(keys)
        assert key not in caught.value.message
