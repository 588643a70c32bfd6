"""Nonces that every node makes and recognises without storage (RFC 9449, 8)."""

import re

import pytest

from authz_server.tokens.dpop_nonces import DPoPNonces

NOW = 1_900_000_040.0  # 20 seconds after the beginning of a slot of 60


def test_a_nonce_is_accepted_by_every_node_with_the_secret():
    """Case A16."""
    nonce = DPoPNonces(b"shared", 120).make(NOW)
    # RFC 9449, 8.1: NQCHAR.
    assert re.fullmatch(r"[A-Za-z0-9_-]{28}", nonce)
    assert DPoPNonces(b"shared", 120).find_expiry(nonce, NOW) == NOW + 100
    assert DPoPNonces(b"other", 120).find_expiry(nonce, NOW) is None


@pytest.mark.parametrize(
    ("seconds", "accepted"), [(-61, True), (0, True), (99, True), (101, False), (-100, False)]
)
def test_a_nonce_lives_for_half_of_its_lifetime_at_least(seconds, accepted):
    """Case A16."""
    nonces = DPoPNonces(b"secret", 120)
    found = nonces.find_expiry(nonces.make(NOW), NOW + seconds)
    assert found == (NOW + 100 if accepted else None)


def test_a_new_nonce_replaces_the_old_one_after_half_of_its_lifetime():
    nonces = DPoPNonces(b"secret", 120)
    first = nonces.make(NOW)
    assert nonces.make(NOW + 39) == first
    assert nonces.make(NOW + 41) != first
    assert nonces.make(NOW) == first


@pytest.mark.parametrize("nonce", ["", "a", "\N{SNOWMAN}", "\x00" * 28, "A" * 28, "A" * 4_000])
def test_an_invented_nonce_is_refused(nonce):
    """Case A16."""
    assert DPoPNonces(b"secret", 120).find_expiry(nonce, NOW) is None


def test_a_changed_nonce_is_refused():
    """Case A16."""
    nonces = DPoPNonces(b"secret", 120)
    nonce = nonces.make(NOW)
    for position in range(len(nonce)):
        other = "A" if nonce[position] != "A" else "B"
        changed = nonce[:position] + other + nonce[position + 1 :]
        assert nonces.find_expiry(changed, NOW) is None, position
