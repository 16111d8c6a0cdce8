"""The address guard: what is refused on submit, and which addresses no socket is opened to."""

import contextlib
import ipaddress
import re
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_service.errors import UnsafeWebhookURL
from llm_service.webhooks.address import (
    _REFUSED,
    AddressRefused,
    _guarded_socket,
    check_url,
    is_public,
)

S9 = {
    "loopback": "127.0.0.1",
    "loopback-short": "127.1",
    "loopback-decimal": "2130706433",
    "loopback-hex-short": "0x7f.1",
    "loopback-hex": "0x7f000001",
    "loopback-hex-parts": "0x7f.0x0.0x0.0x1",
    "loopback-octal": "0177.0.0.1",
    "loopback-octal-whole": "017700000001",
    "loopback-upper-case-hex": "0X7F.1",
    "loopback-trailing-dot": "127.0.0.1.",
    "loopback-end": "127.255.255.254",
    "zero": "0",
    "zero-dotted": "0.0.0.0",
    "zero-net": "0.1.2.3",
    "localhost": "localhost",
    "localhost-upper-case": "LOCALHOST",
    "localhost-trailing-dot": "localhost.",
    "localhost-below": "a.localhost",
    "local": "printer.local",
    "internal": "metadata.google.internal",
    "single-label": "intranet",
    "full-width-digits": "１２７.０.０.１",
    "circled-digits": "①②⑦.⓪.⓪.①",
    "ideographic-dots": "127。0。0。1",
    "half-width-ideographic-dots": "127｡0｡0｡1",
    "full-width-dots": "127．0．0．1",
    "arabic-digits": "١٢٧.٠.٠.١",
    "percent-encoded": "%31%32%37.0.0.1",
    "percent-encoded-last": "127.0.0.%31",
    "metadata": "169.254.169.254",
    "metadata-short": "169.254.43518",
    "metadata-decimal": "2852039166",
    "metadata-ipv6": "[fd00:ec2::254]",
    "link-local": "169.254.0.1",
    "ten": "10.1.2.3",
    "one-seven-two": "172.16.0.1",
    "one-seven-two-end": "172.31.255.255",
    "one-nine-two": "192.168.1.1",
    "carrier": "100.64.0.1",
    "carrier-end": "100.127.255.255",
    "ietf": "192.0.0.8",
    "benchmark": "198.18.0.1",
    "benchmark-end": "198.19.255.255",
    "relay-anycast": "192.88.99.1",
    "documentation-1": "192.0.2.1",
    "documentation-2": "198.51.100.1",
    "documentation-3": "203.0.113.1",
    "multicast": "224.0.0.1",
    "multicast-end": "239.255.255.250",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "ipv6-unspecified": "[::]",
    "ipv6-loopback": "[::1]",
    "ipv6-loopback-long": "[0:0:0:0:0:0:0:1]",
    "ipv6-compatible": "[::7f00:1]",
    "ipv6-compatible-dotted": "[::127.0.0.1]",
    "ipv6-mapped": "[::ffff:7f00:1]",
    "ipv6-mapped-dotted": "[::ffff:127.0.0.1]",
    "ipv6-mapped-metadata": "[::ffff:169.254.169.254]",
    "ipv6-translated": "[::ffff:0:127.0.0.1]",
    "nat64": "[64:ff9b::7f00:1]",
    "nat64-dotted": "[64:ff9b::169.254.169.254]",
    "nat64-local": "[64:ff9b:1::1]",
    "6to4": "[2002:7f00:1::]",
    "teredo": "[2001::1]",
    "teredo-loopback": "[2001:0:0:0:0:0:80ff:fffe]",
    "ietf-ipv6": "[2001:10::1]",
    "discard": "[100::1]",
    "documentation-ipv6": "[2001:db8::1]",
    "documentation-ipv6-new": "[3fff::1]",
    "segment-routing": "[5f00::1]",
    "unique-local": "[fc00::1]",
    "unique-local-fd": "[fd12:3456:789a::1]",
    "link-local-ipv6": "[fe80::1]",
    "link-local-zone": "[fe80::1%25eth0]",
    "site-local": "[fec0::1]",
    "multicast-ipv6": "[ff02::1]",
    "public-zone": "[2606:4700:4700::1111%25eth0]",
    "public-zone-bare": "[2606:4700:4700::1111%lo]",
    "ipv-future": "[v1.example]",
    "half-an-ipv6": "[::1",
    "not-an-ipv6": "[1::2::3]",
}
"""SECURITY line 9, by what is behind it."""


@pytest.mark.parametrize("host", S9.values(), ids=[f"S9-{name}" for name in S9])
def test_s09_no_spelling_of_a_special_address_is_accepted(host: str) -> None:
    with pytest.raises(UnsafeWebhookURL) as refused:
        check_url(f"https://{host}/hook", ())
    told = refused.value.message + str(refused.value.context)
    assert not re.search(r"\d+\.\d+|::", told), f"the answer says what it would reach: {told}"


LITERALS = [host.strip("[]") for host in S9.values()]
ADDRESSES = [host for host in LITERALS if re.fullmatch(r"[0-9.]+[0-9]|[0-9a-f:.]*:[0-9a-f:.]*", host)]


@pytest.mark.parametrize("address", [a for a in ADDRESSES if a.count(".") in {0, 3} and "::2::" not in a])
def test_s09_no_socket_is_opened_to_a_special_address(address: str) -> None:
    """The same at the place that counts: whatever the URL was, this is where it would have gone."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with pytest.raises(AddressRefused, match="address not allowed"):
        _guarded_socket((family, socket.SOCK_STREAM, 6, "", (address, 443)))


def test_s09_the_list_alone_knows_every_special_address() -> None:
    """What `is_global` says has changed between versions of Python, and may again."""
    unknown = []
    for text in ADDRESSES:
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(text)
            address = getattr(address, "ipv4_mapped", None) or address
            same = [network for network in _REFUSED if network.version == address.version]
            unknown += [] if any(address in network for network in same) else [text]
    assert unknown == []


@pytest.mark.parametrize("address", ["4000::1", "8000::1", "1::1", "::ffff:0:8.8.8.8", "e000::1", "400::1"])
def test_s09_what_nobody_was_given_is_not_public(address: str) -> None:
    """Outside of 2000::/3: `is_global` is true for it, and the list has not heard of it."""
    assert not is_public(address)


PUBLIC = ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4014::1", "::ffff:1.1.1.1"]


@pytest.mark.parametrize("address", PUBLIC)
def test_an_ordinary_address_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("text", ["localhost", "", "1.1.1", "fe80::1%eth0", "1.1.1.1/32"])
def test_what_is_no_address_is_not_public(text: str) -> None:
    assert not is_public(text)


PRIVATE_NETWORKS = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "100.64.0.0/10",
)
private = st.sampled_from([ipaddress.IPv4Network(network) for network in PRIVATE_NETWORKS]).flatmap(
    lambda network: st.integers(0, network.num_addresses - 1).map(lambda n: network[n])
)
FULL_WIDTH = str.maketrans("0123456789.", "０１２３４５６７８９．")
IDEOGRAPHIC = str.maketrans(".", "。")


@st.composite
def spelled(draw: st.DrawFn) -> str:
    """A private IPv4 address as some resolver would read it: 1 to 4 parts, each in one of three bases, or in IPv6."""
    number = int(draw(private))
    parts = draw(st.integers(1, 4))
    values = [(number >> (24 - 8 * n)) & 0xFF for n in range(parts - 1)]
    values.append(number & ((1 << (8 * (5 - parts))) - 1))
    bases = [draw(st.sampled_from(("{}", "0x{:x}", "0X{:X}", "0{:o}", "000{:o}"))) for _ in values]
    dotted = ".".join(base.format(value) for base, value in zip(bases, values, strict=True))
    whole = str(ipaddress.IPv4Address(number))
    high, low = number >> 16, number & 0xFFFF
    return draw(
        st.sampled_from(
            [
                dotted,
                dotted + ".",
                whole.translate(FULL_WIDTH),
                whole.translate(IDEOGRAPHIC),
                f"[::ffff:{whole}]",
                f"[::ffff:{high:x}:{low:x}]",
                f"[::{high:x}:{low:x}]",
                f"[64:ff9b::{high:x}:{low:x}]",
                f"[2002:{high:x}:{low:x}::1]",
                f"[2001:0:1:2:3:4:{high ^ 0xFFFF:x}:{low ^ 0xFFFF:x}]",
            ]
        )
    )


@given(spelled())
def test_s09_any_spelling_of_a_private_address_is_refused(host: str) -> None:
    with pytest.raises(UnsafeWebhookURL):
        check_url(f"https://{host}/hook", ())


@given(private)
def test_s09_the_guard_agrees_with_the_check(address: ipaddress.IPv4Address) -> None:
    assert not is_public(str(address))
    assert not is_public(f"::ffff:{address}")


S8 = {
    "http": "http://example.org/",
    "ftp": "ftp://example.org/",
    "javascript": "javascript:alert(1)",
    "no-scheme": "example.org",
    "no-host": "https://",
    "no-host-with-path": "https:///path",
    "relative": "//example.org/",
    "user": "https://user@example.org/",
    "user-and-password": "https://user:pw@example.org/",
    "empty-user": "https://@example.org/",
    "user-that-looks-like-a-host": "https://example.org@127.0.0.1/",
    "fragment": "https://example.org/#part",
    "port": "https://example.org:8443/",
    "port-too-large": "https://example.org:99999/",
    "port-no-number": "https://example.org:x/",
    "space": "https://exa mple.org/",
    "backslash": "https://e.org/\\x",
    "backslash-before-at": "https://e.org\\@127.0.0.1/",
    "newline": "https://e.org/\n",
    "tab-inside": "https://e.o\trg/",
    "nul": "https://e.org/\x00",
}


@pytest.mark.parametrize("url", S8.values(), ids=[f"S8-{name}" for name in S8])
def test_s08_a_url_that_is_more_or_less_than_a_public_https_one_is_refused(url: str) -> None:
    with pytest.raises(UnsafeWebhookURL):
        check_url(url, ())


@pytest.mark.parametrize("url", ["https://", "https:///path", "https:example.org", "https://:443/"])
def test_s08_a_url_without_a_host_is_told_so(url: str) -> None:
    with pytest.raises(UnsafeWebhookURL, match="it has no host"):
        check_url(url, ())


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/hook",
        "https://example.org:443/x?y=1",
        "https://xn--bcher-kva.example/",
        "https://hooks_1.example.org/",
        "https://1.1.1.1/",
        "https://[2606:4700:4700::1111]/",
        "https://0x1.example.org/",
    ],
)
def test_a_public_https_url_passes(url: str) -> None:
    check_url(url, ())


def test_s13_the_operators_exceptions_pass_and_no_others() -> None:
    check_url("http://localhost:9000/hook", ("localhost",))
    check_url("http://10.0.0.5:9000/hook", ("10.0.0.5:9000",))
    for url in (
        "http://10.0.0.5:9001/hook",
        "http://10.0.0.6:9000/hook",
        "http://user@localhost/",
        "ftp://localhost/",
        "localhost://localhost/",
        "http://localhost/#part",
        "http://a.localhost/",
    ):
        with pytest.raises(UnsafeWebhookURL):
            check_url(url, ("10.0.0.5:9000", "localhost"))
