"""ML-DSA (FIPS 204, RFC 9964): switched on knowingly, then like any other algorithm."""

import json
from time import perf_counter

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA65PrivateKey
from jwcrypto.jwk import JWK, JWKSet
from jwcrypto.jws import JWS

from keys.backends.local.backend import LocalBackend
from keys.backends.registry import BackendContext
from keys.errors import BackendDenied, KeysError, TokenRefusedError
from keys.jose.algorithms import ALGORITHMS, allowed_algorithms, get_algorithm
from keys.jose.compact import MAXIMUM_TOKEN_CHARACTERS
from keys.jose.jwk import load_public_key, public_jwk, thumbprint
from keys.jose.signatures import make_verifier, meaningless_signature
from keys.lifecycle.first_key import create_first_key
from keys.memory import MemoryEncryptedKeyStorage, MemoryKeyStore
from keys.ring import KeyRings
from keys.signing_key import RingDefinition
from keys.testing import KeyBackendContract
from support.clock import FakeClock
from support.opened_backends import open_backend

NAMES = ("ML-DSA-44", "ML-DSA-65", "ML-DSA-87")
KEY_ENCRYPTION_KEY = bytes(range(32))
PAYLOAD = b'{"iss":"https://authz.example.org","sub":"client","exp":1900000000}'


class TestLocalBackendWithLatticeKeys(KeyBackendContract):
    alg = "ML-DSA-44"

    @pytest.fixture
    def backend(self):
        return local_backend(MemoryEncryptedKeyStorage())


def local_backend(storage, *, experimental=True):
    return LocalBackend(storage, KEY_ENCRYPTION_KEY, FakeClock(), experimental=experimental)


@pytest.fixture(params=NAMES)
def rings(request):
    """A ring of each parameter set, named after it."""
    store, clock, backend = (
        MemoryKeyStore(),
        FakeClock(),
        local_backend(MemoryEncryptedKeyStorage()),
    )
    definition = RingDefinition(name=request.param, alg=request.param, backend_uri="sql://")
    assert create_first_key(store, backend, definition, clock=clock, actor="test")
    rings = KeyRings(store, {"sql://": backend}, clock, request.param)
    rings.refresh()
    return rings


def sign(rings):
    (ring,) = rings.ring_names()
    return ring, rings.sign(ring, PAYLOAD, typ="at+jwt", lifetime_seconds=900)


def test_they_are_the_experimental_ones():
    assert {name for name in ALGORITHMS if get_algorithm(name).experimental} == set(NAMES)
    assert allowed_algorithms(experimental=True) == set(ALGORITHMS)
    assert allowed_algorithms(experimental=False) == set(ALGORITHMS) - set(NAMES)


@pytest.mark.parametrize("alg", NAMES)
def test_without_the_switch_no_key_is_made_or_used(alg):
    storage = MemoryEncryptedKeyStorage()
    closed = local_backend(storage, experimental=False)
    assert alg not in closed.caps.algs
    with pytest.raises(BackendDenied, match=f"{alg} is experimental"):
        closed.create("ring", alg)
    assert storage.keys == []
    local_backend(storage).create("ring", alg)
    with pytest.raises(BackendDenied, match=f"{alg} is experimental"):
        closed.sign("ring", "1", alg, [b"data"])


@pytest.mark.parametrize("scheme", ["sql", "file"])
def test_the_switch_of_the_context_is_the_backends(scheme, tmp_path):
    for experimental in (False, True):
        context = BackendContext(
            clock=FakeClock(),
            experimental=experimental,
            encrypted_keys=MemoryEncryptedKeyStorage(),
            key_encryption_key=KEY_ENCRYPTION_KEY,
        )
        uri = "sql://" if scheme == "sql" else f"file://{tmp_path}/keys.json"
        backend = open_backend(uri, context)
        assert backend.caps.algs == allowed_algorithms(experimental=experimental)


def test_a_token_is_verified_here_and_by_another_library(rings):
    alg, signed = sign(rings)
    assert rings.verify(signed.token).payload == PAYLOAD
    keys = JWKSet.from_json(rings.jwks().decode())
    verifier = JWS()
    verifier.allowed_algs = [alg]
    verifier.deserialize(signed.token, keys.get_key(signed.kid))
    assert verifier.payload == PAYLOAD


def test_what_another_library_signs_with_the_same_key_verifies_here():
    private = MLDSA65PrivateKey.generate()
    jwk = public_jwk(private)
    token = JWS(PAYLOAD)
    header = json.dumps({"alg": "ML-DSA-65"})
    token.add_signature(JWK.from_pyca(private), alg="ML-DSA-65", protected=header)
    head, _, _signature = token.serialize(compact=True).rpartition(".")
    verify = make_verifier(load_public_key(jwk, "ML-DSA-65"), get_algorithm("ML-DSA-65"))
    verify(token.objects["signature"], head.encode())
    with pytest.raises(TokenRefusedError):
        verify(token.objects["signature"], head.encode() + b"x")


def test_the_jwks_names_type_algorithm_and_nothing_private(rings):
    """Case G74."""
    alg, _signed = sign(rings)
    published = json.loads(rings.jwks())["keys"]
    assert len(published) == 2
    for key in published:
        assert set(key) == {"kty", "alg", "pub", "use", "kid"}
        assert (key["kty"], key["alg"], key["use"]) == ("AKP", alg, "sig")
        public = {name: key[name] for name in ("kty", "alg", "pub")}
        # RFC 9964: the thumbprint includes alg.
        assert key["kid"] == thumbprint(public) == JWK(**public).thumbprint()


def test_the_largest_payload_still_fits(rings):
    _, signed = sign(rings)
    assert len(signed.token) < MAXIMUM_TOKEN_CHARACTERS / 2


def test_a_key_is_for_its_own_parameter_set_only():
    """Case D38."""
    jwk = public_jwk(MLDSA44PrivateKey.generate())
    assert load_public_key(jwk, "ML-DSA-44")
    for alg in set(ALGORITHMS) - {"ML-DSA-44"}:
        with pytest.raises(KeysError):
            load_public_key(jwk, alg)
    for other in ("ML-DSA-65", "ES256", "none", ""):
        with pytest.raises(KeysError):
            load_public_key(jwk | {"alg": other}, other if other in ALGORITHMS else "ML-DSA-44")


@pytest.mark.parametrize(
    "changed",
    [{"pub": ""}, {"pub": "AAAA"}, {"pub": "*"}, {"pub": None}, {"priv": "AAAA"}, {"crv": "x"}],
)
def test_anything_but_a_sound_public_key_is_refused(changed):
    """Case D55."""
    jwk = public_jwk(MLDSA44PrivateKey.generate())
    with pytest.raises(KeysError):
        load_public_key(jwk | changed, "ML-DSA-44")


def test_a_spent_verification_costs_what_a_true_one_costs(rings):
    (snapshot,) = rings.snapshots()
    key = snapshot.keys[0]
    algorithm = get_algorithm(key.alg)
    verify = make_verifier(load_public_key(key.public_jwk, key.alg), algorithm)
    data, signature = bytes(600), meaningless_signature(algorithm.signature_bytes)
    with pytest.raises(TokenRefusedError) as caught:
        verify(signature, data)
    assert caught.value.signature_checked
    early = bytes([255]) * algorithm.signature_bytes
    assert fastest(verify, signature, data) > 1.5 * fastest(verify, early, data)


def fastest(verify, signature, data):
    """Seconds of the fastest of many refusals: what the machine does besides only adds."""
    times = []
    for _ in range(100):
        begun = perf_counter()
        with pytest.raises(TokenRefusedError):
            verify(signature, data)
        times.append(perf_counter() - begun)
    return min(times)
