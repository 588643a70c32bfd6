"""Whose address counts: what a stranger writes into a header never does."""

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz_server.endpoints.source import SourceReader

PROXIES = ("10.0.0.0/8", "fd00::/8", "192.0.2.1/32")
READER = SourceReader(PROXIES)

proxies = st.sampled_from(["10.0.0.1", "10.255.3.4", "fd00::7", "192.0.2.1"])
strangers = st.sampled_from(["203.0.113.9", "192.0.2.2", "2001:db8::1", "9.9.9.9"])
junk = st.one_of(
    st.text(max_size=1_500),
    st.lists(st.one_of(proxies, strangers, st.just("unknown")), max_size=60).map(", ".join),
)


def environ_of(peer, forwarded=None):
    environ = {"REMOTE_ADDR": peer}
    if forwarded is not None:
        environ["HTTP_X_FORWARDED_FOR"] = forwarded
    return environ


@given(peer=strangers, forwarded=junk)
def test_a_stranger_is_where_the_connection_comes_from(peer, forwarded):
    """Case I100"""
    assert READER.read(environ_of(peer, forwarded)) == peer


@given(peer=st.one_of(proxies, strangers), forwarded=junk)
def test_without_trusted_proxies_no_header_counts(peer, forwarded):
    """Case I100"""
    assert SourceReader(()).read(environ_of(peer, forwarded)) == peer


@given(peer=proxies, sender=strangers, forged=junk, between=st.lists(proxies, max_size=3))
def test_what_stands_left_of_the_sender_changes_nothing(peer, sender, forged, between):
    """Case I100"""
    header = ",".join([forged, *[f" {hop} " for hop in [sender, *between]]])
    assert READER.read(environ_of(peer, header)) == sender


@example(peer="10.0.0.1", forwarded="10.0.0.2, , 10.0.0.3")
@example(peer="10.0.0.1", forwarded="[2001:db8::1]:443")
@given(peer=st.one_of(proxies, strangers, st.text(max_size=20)), forwarded=junk)
def test_the_source_is_the_peer_or_an_address_of_the_header(peer, forwarded):
    found = READER.read(environ_of(peer, forwarded))
    if found != peer:
        ipaddress.ip_address(found)
        assert found in forwarded


@pytest.mark.parametrize("peer", ["", "unix:", "10.0.0.1.evil", "0x0a000001", "10.0.0"])
def test_a_peer_that_is_no_address_is_no_proxy(peer):
    assert READER.read(environ_of(peer, "203.0.113.9")) == peer


def test_a_proxy_without_header_is_the_sender():
    assert READER.read(environ_of("10.0.0.1")) == "10.0.0.1"
    assert READER.read(environ_of("10.0.0.1", "")) == "10.0.0.1"
    assert READER.read({}) == ""


def test_a_proxy_is_known_by_its_mapped_address_too():
    """A listener for both families shows IPv4 peers as mapped addresses."""
    assert READER.read(environ_of("::ffff:10.0.0.1", "203.0.113.9")) == "203.0.113.9"
    assert READER.read(environ_of("::ffff:11.0.0.1", "203.0.113.9")) == "::ffff:11.0.0.1"
