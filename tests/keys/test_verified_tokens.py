"""The memory of verified signatures: it saves a verification and never replaces a check."""

import pytest

from keys import verified_tokens
from keys.errors import TokenRefusedError
from keys.signing_key import KeyState
from support.forged_tokens import segment

PAYLOAD = b'{"iss":"https://authz.example.org","exp":1900000000}'


@pytest.fixture
def token(ring_set):
    return ring_set.rings.sign("ES256", PAYLOAD, typ="at+jwt", lifetime_seconds=900).token


@pytest.fixture
def sign_own(ring_set):
    """Sign any payload with the ring's own key."""
    kid = ring_set.key("ES256", 1).kid

    def sign(payload: bytes) -> str:
        header = {"alg": "ES256", "kid": kid, "typ": "at+jwt"}
        signing_input = f"{segment(header)}.{segment(payload)}"
        (signature,) = ring_set.backend.sign("ES256", "1", "ES256", [signing_input.encode()])
        return f"{signing_input}.{segment(signature)}"

    return sign


def test_the_second_sight_is_remembered_with_the_same_content(ring_set, token):
    first, second = ring_set.rings.verify(token), ring_set.rings.verify(token)
    assert (first.remembered, second.remembered) == (False, True)
    assert second == first._replace(remembered=True)


def test_another_signature_over_the_same_claims_is_verified(ring_set, token):
    ring_set.rings.verify(token)
    head, _, signature = token.rpartition(".")
    swapped = "A" if signature[0] != "A" else "B"
    with pytest.raises(TokenRefusedError):
        ring_set.rings.verify(f"{head}.{swapped}{signature[1:]}")


@pytest.mark.parametrize("state", [KeyState.REVOKED, KeyState.REMOVED])
def test_a_key_that_counts_no_more_ends_its_remembered_tokens(ring_set, token, state):
    ring_set.rings.verify(token)
    ring_set.change("ES256", 1, state)
    ring_set.rings.refresh()
    with pytest.raises(TokenRefusedError):
        ring_set.rings.verify(token)


def test_a_ring_that_was_read_again_verifies_again(ring_set, token):
    ring_set.rings.verify(token)
    ring_set.change("ES256", 1, KeyState.TAINTED)
    ring_set.rings.refresh()
    assert not ring_set.rings.verify(token).remembered
    assert ring_set.rings.verify(token).remembered


def test_a_refused_token_is_not_remembered(ring_set, token):
    forged = token[:-8] + "AAAAAAAA"
    for _ in range(2):
        with pytest.raises(TokenRefusedError) as refused:
            ring_set.rings.verify(forged)
        assert refused.value.signature_checked


def test_the_oldest_go_first(ring_set, monkeypatch):
    monkeypatch.setattr(verified_tokens, "MAXIMUM_ENTRIES", 2)
    tokens = [
        ring_set.rings.sign("ES256", b'{"n":%d}' % n, typ="at+jwt", lifetime_seconds=9).token
        for n in range(3)
    ]
    for each in tokens:
        ring_set.rings.verify(each)
    assert [ring_set.rings.verify(each).remembered for each in reversed(tokens)] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "payload",
    [
        b'{"exp":1,"exp":2}',
        b'{"a":{"b":1,"b":2}}',
        b'{"exp":NaN}',
        b'{"exp":1e400}',
        b'{"exp":' + b"9" * 40 + b"}",
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b"[]",
        b'"text"',
        b"{} {}",
        b"[" * 10_000,
        b'{"a":1}\x00',
    ],
)
def test_a_payload_that_can_be_read_in_two_ways_is_refused(ring_set, sign_own, payload):
    for _ in range(2):
        with pytest.raises(TokenRefusedError):
            ring_set.rings.verify(sign_own(payload))
