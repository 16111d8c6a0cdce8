"""The address guard: what is refused on submit, and which addresses no socket is opened to."""

import pytest

from llm_service.errors import UnsafeWebhookURL
from llm_service.webhooks.address import check_url, is_public

PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "100.64.0.1", "169.254.169.254", "172.16.0.1"),
    *("192.168.1.1", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:7f00:1"),
    *("64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::"),
    *("fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1"),
]
PUBLIC = ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4014::1", "::ffff:1.1.1.1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_special_address_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_an_ordinary_address_is_public(address: str) -> None:
    assert is_public(address)


def test_what_is_no_address_is_not_public() -> None:
    assert not is_public("localhost")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://example.org/",
            "ftp://example.org/",
            "example.org",
            "https://",
            "https:///path",
            "//example.org/",
        ),
        *("https://user@example.org/", "https://user:pw@example.org/", "https://example.org/#part"),
        *(
            "https://example.org:8443/",
            "https://example.org:99999/",
            "https://exa mple.org/",
            "https://e.org/\\x",
        ),
        *(
            "https://e.org/\n",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://a.localhost/",
            "https://x.local/",
        ),
        *("https://metadata.google.internal/", "https://intranet/", "https://127.0.0.1/", "https://127.1/"),
        *(
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://0/",
        ),
        *(
            "https://169.254.43518/",
            "https://１２７.０.０.１/",
            "https://①②⑦.0.0.1/",
            "https://127。0。0。1/",
        ),
        *("https://[::1]/", "https://[::ffff:169.254.169.254]/", "https://[fd00:ec2::254]/", "https://[::1/"),
    ],
)
def test_an_unsafe_url_is_refused_without_repeating_what_it_would_reach(url: str) -> None:
    with pytest.raises(UnsafeWebhookURL) as refused:
        check_url(url, ())
    assert "169.254" not in refused.value.message


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/hook",
        "https://example.org:443/x?y=1",
        "https://xn--bcher-kva.example/",
        "https://1.1.1.1/",
    ],
)
def test_a_public_https_url_passes(url: str) -> None:
    check_url(url, ())


def test_the_operators_exceptions_pass_and_no_others() -> None:
    check_url("http://localhost:9000/hook", ("localhost",))
    check_url("http://10.0.0.5:9000/hook", ("10.0.0.5:9000",))
    for url in ("http://10.0.0.5:9001/hook", "http://10.0.0.6:9000/hook"):
        with pytest.raises(UnsafeWebhookURL):
            check_url(url, ("10.0.0.5:9000", "localhost"))
