"""The door in: whatever was signed, and whatever arrives instead, the answer is yes or no."""

import hashlib
import json
from datetime import UTC
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from authz_server.tokens.claims import new_jti
from authz_server.tokens.verification import TokenVerifier
from authz_server.waiting import run
from keys.backends.local.sql import LocalBackend
from keys.lifecycle.first_key import create_first_key
from keys.memory import MemoryEncryptedKeyStorage, MemoryKeyStore
from keys.ring import KeyRings
from keys.signing_key import RingDefinition
from support.clock import FakeClock
from support.hostile_tokens import ODD_VALUES, hostile_token
from support.searches import inputs

ISSUER = "https://authz.example"
LONGEST = 3_600
SKEW = 10


class Mint:
    """Signs anything, as a server gone wrong might."""

    def __init__(self):
        self.clock = FakeClock()
        store, storage = MemoryKeyStore(), MemoryEncryptedKeyStorage()
        backend = LocalBackend(storage, bytes(range(32)), self.clock)
        self.rings = KeyRings(store, {"sql://": backend}, self.clock, "es256")
        ring = RingDefinition(name="es256", alg="ES256", backend_uri="sql://")
        create_first_key(store, backend, ring, clock=self.clock, actor="test")
        self.rings.refresh()
        self.references = {}
        self.queries, self.when_asked = 0, lambda: None
        self.verifier = TokenVerifier(
            issuer=ISSUER,
            key_rings=self.rings,
            database=SimpleNamespace(fetch_one=self._fetch_one),
            clock=self.clock,
            clock_skew_seconds=SKEW,
            maximum_lifetime_seconds=LONGEST,
            catch_up=self._catch_up,
        )

    @property
    def now(self):
        return int(self.clock().replace(tzinfo=UTC).timestamp())

    def claims(self, **members):
        usual = {"iss": ISSUER, "sub": "ministry", "client_id": "ministry", "scope": "mapper/link"}
        dates = {"iat": self.now, "exp": self.now + 900, "jti": new_jti(self.now * 1_000_000)}
        claims = usual | dates | {"aud": "https://mapper.example"} | members
        return {name: value for name, value in claims.items() if value is not ...}

    def sign(self, payload, typ="at+jwt"):
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return self.rings.sign("es256", data, typ=typ, lifetime_seconds=900).token

    def find(self, payload, typ="at+jwt"):
        return self.find_token(self.sign(payload, typ))

    def find_token(self, token):
        return run(self.verifier.find_verified(token))

    async def _catch_up(self):
        self.queries += 1
        self.when_asked()

    async def _fetch_one(self, _question, value):
        return self.references.get(value)


@pytest.fixture(scope="module")
def mint():
    return Mint()


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(max_size=8), inner)),
    max_leaves=8,
)
names = st.sampled_from(["iss", "sub", "client_id", "aud", "iat", "exp", "jti", "scope", "nbf"])


def test_a_sound_token_is_found(mint):
    found = mint.find(mint.claims(extra={"of": "a plugin"}))
    assert found.claims.client_id == "ministry"
    assert found.kid
    assert json.loads(found.payload)["extra"] == {"of": "a plugin"}


@settings(max_examples=inputs(300))
@given(payload=json_values)
def test_any_json_that_we_signed_is_refused_without_a_fault(mint, payload):
    """Case D46, D47"""
    assert mint.find(payload) is None


@given(payload=st.binary(max_size=60))
def test_any_bytes_that_we_signed_are_refused_without_a_fault(mint, payload):
    """Case D47"""
    assert mint.find(payload) is None


@settings(max_examples=inputs(400))
@given(changes=st.dictionaries(names, st.one_of(json_values, st.integers()), min_size=1))
def test_claims_of_any_value_never_get_past_their_rules(mint, changes):
    """Case D46, D47"""
    found = mint.find(mint.claims(**changes))
    if found is None:
        return
    claims = found.claims
    assert claims.iss == ISSUER
    assert claims.iat <= mint.now + SKEW
    assert mint.now < claims.exp <= claims.iat + LONGEST
    assert claims.nbf <= mint.now + SKEW
    assert claims.is_sound()


@pytest.mark.parametrize("name", ["iss", "sub", "client_id", "aud", "iat", "exp", "jti", "scope"])
def test_no_claim_may_be_absent(mint, name):
    """Case C30, D50"""
    assert mint.find(mint.claims(**{name: ...})) is None


@pytest.mark.parametrize("name", ["iat", "exp", "nbf"])
@pytest.mark.parametrize(
    "spelled",
    ['"1"', "true", "NaN", "Infinity", "1e400", f"1{'0' * 400}", "9" * 5_000, "-1", "1.5", "null"],
    ids=lambda spelled: spelled[:12],
)
def test_a_date_of_any_other_kind_is_refused(mint, name, spelled):
    """Case D46"""
    members = mint.claims(**{name: 7_777_777})
    payload = json.dumps(members).replace("7777777", spelled).encode()
    assert mint.find(payload) is None


@pytest.mark.parametrize("name", ["iss", "sub", "client_id", "aud", "jti", "scope"])
@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: repr(value)[:12])
def test_an_odd_value_never_makes_a_fault(mint, name, value):
    """Case D47"""
    found = mint.find(mint.claims(**{name: value}))
    assert found is None or isinstance(getattr(found.claims, name), str | tuple)


@pytest.mark.parametrize("spelled", ['"\\u0000"', '"\\ud800"', '"\\u2028"', '"\\r\\n"'])
@pytest.mark.parametrize("name", ["iss", "sub", "client_id", "jti", "scope"])
def test_text_that_no_record_can_hold_is_refused(mint, name, spelled):
    """Case D47, K123"""
    payload = json.dumps(mint.claims(**{name: "HERE"})).replace('"HERE"', spelled).encode()
    assert mint.find(payload) is None


@pytest.mark.parametrize(
    ("offsets", "in_force"),
    [
        ({"iat": 0, "exp": 900}, True),
        ({"iat": 8, "exp": 900}, True),
        ({"iat": 61, "exp": 900}, False),
        ({"nbf": 8}, True),
        ({"nbf": 61}, False),
        ({"exp": 0}, False),
        ({"exp": 1}, True),
        ({"iat": -10, "exp": LONGEST - 10}, True),
        ({"iat": -10, "exp": LONGEST}, False),
        ({"iat": 5, "exp": 5}, False),
        ({"iat": 9, "exp": 4}, False),
    ],
)
def test_dates_are_held_against_the_clock(mint, offsets, in_force):
    """Case D50"""
    members = {name: mint.now + offset for name, offset in offsets.items()}
    assert (mint.find(mint.claims(**members)) is not None) == in_force


@pytest.mark.parametrize("issuer", [f"{ISSUER}/", ISSUER.upper(), "https://other.example", ""])
def test_the_issuer_is_ours_to_the_letter(mint, issuer):
    assert mint.find(mint.claims(iss=issuer)) is None


@pytest.mark.parametrize(
    "typ", ["at+JWT", "jwt", "AT+JWT", "token-introspection+jwt", "application/x"]
)
def test_another_type_of_token_is_no_access_token(mint, typ):
    """Case C30, D48"""
    assert mint.find(mint.claims(), typ) is None


@pytest.mark.parametrize("chunk", range(4))
def test_what_is_no_token_is_refused_without_a_fault(mint, chunk):
    """Case D36, D38, D40, D41, D43"""
    random = Random(f"verification-{chunk}")
    sound = mint.sign(mint.claims())
    expected = replace(mint.find_token(sound), remembered=True)
    for _ in range(1_000):
        token = hostile_token(random, sound)
        found = mint.find_token(token)
        assert found is None or (token == sound and found == expected), token


def test_a_reference_is_found_by_its_hash_alone_and_held_to_the_same_rules(mint):
    handle = "r" * 43
    digest = hashlib.sha256(handle.encode()).digest()
    mint.references[digest] = (json.dumps(mint.claims()).encode(),)
    assert mint.find_token(handle).kid == ""
    mint.references[digest] = (json.dumps(mint.claims(exp=mint.now)).encode(),)
    assert mint.find_token(handle) is None
    assert mint.find_token("s" * 43) is None
    assert mint.find_token("é" * 43) is None


@pytest.fixture
def lagging():
    """A node that has not read yet which key the others sign with."""
    mint = Mint()
    mint.token = mint.sign(mint.claims())
    rings = mint.rings
    mint.verifier._key_rings = KeyRings(rings._store, {}, mint.clock, "es256")  # noqa: SLF001
    mint.when_asked = mint.verifier._key_rings.load  # noqa: SLF001
    return mint


@pytest.mark.parametrize("ask", ["find_verified", "find_revocable", "verify"])
def test_a_token_of_a_key_that_is_new_here_is_verified(lagging, ask):
    """Its revocation would be acknowledged and lost, or a good token refused."""
    assert run(getattr(lagging.verifier, ask)(lagging.token))
    assert run(getattr(lagging.verifier, ask)(lagging.token))
    assert lagging.queries == 1


def test_a_key_that_is_nowhere_costs_one_query_each_time(lagging):
    lagging.when_asked = lambda: None
    assert lagging.find_token(lagging.token) is None
    assert run(lagging.verifier.find_revocable(lagging.token)) is None
    assert lagging.queries == 2


def test_a_token_of_another_issuer_costs_no_query(lagging):
    """Those that are exchanged are of other keys."""
    for payload in (lagging.claims(iss="https://other.example"), b"[]", b"\xff", {"iss": 7}):
        token = lagging.sign(payload)
        assert lagging.find_token(token) is None
    assert lagging.queries == 0


@pytest.mark.parametrize("token", ["", "a.b.c", "unknown", "x" * 43])
def test_each_refusal_at_introspection_costs_one_query(lagging, token):
    """Its time reveals no reason."""
    for presented in (token, lagging.sign(lagging.claims(iss="https://other.example"))):
        lagging.queries = 0
        assert run(lagging.verifier.find_verified(presented, at_equal_cost=True)) is None
        assert lagging.queries == 1
