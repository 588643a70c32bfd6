"""URLs and addresses that are fetched, and those that are not."""

import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest

from authz_server.clients.outbound import (
    AddressRule,
    FetchUrl,
    UrlRefusedError,
    is_public,
    read_retry_after,
    split_url,
)

REFUSED_URLS = [
    "",
    "keys.example/jwks",
    "//keys.example/jwks",
    "http://keys.example/jwks",
    "HTTP://keys.example/jwks",
    "ftp://keys.example/jwks",
    "file:///etc/passwd",
    "data:application/json,{}",
    "gopher://keys.example/",
    "unix:///run/docker.sock",
    "https://",
    "https:///jwks",
    "https:keys.example",
    "https://user@keys.example/",
    "https://user:secret@keys.example/",
    "https://keys.example@127.0.0.1/",
    "https://@keys.example/",
    "https://keys.example/#fragment",
    "https://keys.example#@127.0.0.1/",
    "https://keys.example\\@127.0.0.1/",
    "https://keys.example/a b",
    "https://keys.example/\r\nHost: inner",
    "https://keys.example/\N{SNOWMAN}",
    "https://k\N{LATIN SMALL LETTER E WITH ACUTE}ys.example/",
    "https://keys.example./",
    "https://.keys.example/",
    "https://keys..example/",
    "https://-keys.example/",
    "https://" + "a" * 64 + ".example/",
    "https://keys.example:/",
    "https://keys.example:0/",
    "https://keys.example:22/",
    "https://keys.example:80/",
    "https://keys.example:65536/",
    "https://keys.example:x/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://127.0.0.01/",
    "https://127.0.0.1./",
    "https://1.2.3/",
    "https://1.2.3.4.5/",
    "https://256.1.1.1/",
    "https://example.0x7f/",
    "https://::1/",
    "https://[::1/",
    "https://[::1]x/",
    "https://[fe80::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[keys.example]/",
    "https://[127.0.0.1]/",
    "https://keys.example/" + "a" * 2_100,
]
INNER_ADDRESSES = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "3fff::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC_ADDRESSES = [
    "1.1.1.1",
    "100.63.255.255",
    "172.32.0.1",
    "192.0.3.1",
    "223.255.255.255",
    "::ffff:1.1.1.1",
    "64:ff9b::101:101",
    "2606:4700::1111",
    "2a00:1450::1",
]


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_such_a_url_is_never_fetched(url):
    """Case H92."""
    with pytest.raises(UrlRefusedError):
        split_url(url)


def test_other_urls_are_taken_apart():
    assert split_url("https://Keys.Example/a/b?c=d") == FetchUrl(
        "https", "https://keys.example", "keys.example", 443, "/a/b?c=d"
    )
    assert split_url("https://keys.example:8443") == FetchUrl(
        "https", "https://keys.example:8443", "keys.example", 8443, "/"
    )
    assert split_url("https://[2606:4700::1111]:8443/").origin == "https://[2606:4700::1111]:8443"
    assert split_url("https://keys.example:443/").origin == "https://keys.example"
    assert split_url("http://127.0.0.1:8080/", plain_http=True).port == 8080


@pytest.mark.parametrize("address", INNER_ADDRESSES)
def test_an_address_that_is_not_public_is_refused(address):
    """Case H92."""
    assert not is_public(ip_address(address))
    with pytest.raises(UrlRefusedError):
        AddressRule([]).require(["1.1.1.1", address])


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_public_addresses_are_permitted(address):
    AddressRule([]).require([address])


def test_a_network_of_the_settings_is_permitted_and_no_other():
    rule = AddressRule(["10.20.0.0/16", "fd12::/16"])
    rule.require(["10.20.3.4", "fd12::1", "::ffff:10.20.3.4", "64:ff9b::a14:304"])
    for address in ("10.21.0.1", "fd13::1", "::ffff:10.21.0.1", "64:ff9b::a15:1"):
        with pytest.raises(UrlRefusedError):
            rule.require([address])


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", 0),
        ("0", 0),
        (" 120 ", 120),
        ("9" * 400, 999_999_999),
        ("-5", 0),
        ("1.5", 0),
        ("1e9", 0),
        ("\N{ARABIC-INDIC DIGIT FIVE}", 0),
        ("soon", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 99999 07:28:00 GMT", 0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", 0),
    ],
)
def test_a_time_that_is_asked_for_is_read_or_none(value, seconds):
    assert read_retry_after(value) == seconds


@pytest.fixture(params=["UTC", "Africa/Nairobi", "America/Lima"])
def time_zone(request, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("time_zone")
@pytest.mark.parametrize(
    "form",
    [
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %d %H:%M:%S %Y",
        "%a, %d %b %Y %H:%M:%S -0000",
    ],
)
def test_a_time_may_be_asked_for_as_a_date(form):
    """RFC 9110, 10.2.3 and 5.6.7: also in a form without a zone, whatever zone is set here."""
    at = datetime.now(UTC) + timedelta(seconds=90)
    assert 88 < read_retry_after(at.strftime(form)) <= 90
