"""Generated tokens at the ring: none is accepted but the one that was signed."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from keys.backends.local.sql import LocalBackend
from keys.errors import TokenRefusedError
from keys.lifecycle.first_key import create_first_key
from keys.memory import MemoryEncryptedKeyStorage, MemoryKeyStore
from keys.ring import KeyRings
from keys.signing_key import RingDefinition
from support.clock import FakeClock
from support.forged_tokens import token_of
from support.searches import inputs

PAYLOAD = b'{"iss":"https://authz.example.org","exp":1900000000}'
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.fixture(scope="module")
def shared():
    """One ring for thousands of generated tokens: verification changes nothing."""

    clock, store = FakeClock(), MemoryKeyStore()
    backend = LocalBackend(MemoryEncryptedKeyStorage(), bytes(32), clock)
    definition = RingDefinition(name="ES256", alg="ES256", backend_uri="sql://")
    create_first_key(store, backend, definition, clock=clock, actor="test")
    rings = KeyRings(store, {"sql://": backend}, clock, "ES256")
    rings.refresh()
    return rings, rings.sign("ES256", PAYLOAD, typ="at+jwt", lifetime_seconds=900).token


def only_refused(rings, token, good):
    try:
        verified = rings.verify(token)
    except TokenRefusedError:
        return
    assert token == good
    assert verified.payload == PAYLOAD


@given(st.text())
@example("")
@example("..")
@example("a.b.c")
def test_arbitrary_text(shared, text):
    """Case D36."""
    only_refused(shared[0], text, shared[1])


base64url = st.text(ALPHABET, max_size=60)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.tuples(base64url, base64url, base64url).map(".".join))
def test_arbitrary_segments(shared, text):
    """Case D36."""
    only_refused(shared[0], text, shared[1])


@given(
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "jwk"]), json_values),
    st.binary(max_size=40),
    st.binary(max_size=80),
)
def test_arbitrary_headers(shared, header, payload, signature):
    """Case D36, D40, D41."""
    rings, good = shared
    kid = rings.verify(good).kid
    for complete in (header, {"alg": "ES256", "kid": kid, "typ": "at+jwt"} | header):
        only_refused(rings, token_of(complete, payload, signature), good)


@given(st.data())
@settings(max_examples=inputs(500), suppress_health_check=[HealthCheck.too_slow])
def test_every_mutation_of_a_good_token(shared, data):
    """Case D36, D40, D41."""
    rings, good = shared
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 8)))
    put = data.draw(st.text(ALPHABET + ".=+/ \n", max_size=8) | st.text(max_size=4))
    only_refused(rings, good[:start] + put + good[end:], good)
