"""Confusion of algorithms and keys at the ring: the key alone says what its signatures are."""

import hmac
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keys.errors import TokenRefusedError
from keys.jose.jwk import public_jwk
from keys.key_set import make_dummy_verification, read_ring
from support.forged_tokens import segment

PAYLOAD = b'{"iss":"https://authz.example.org","exp":1900000000}'


def refuse(rings, token):
    with pytest.raises(TokenRefusedError) as caught:
        rings.verify(token)
    assert caught.value.reason
    assert len(caught.value.reason) < 60
    return caught.value


@pytest.fixture
def kid(ring_set):
    return ring_set.key("ES256", 1).kid


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("form", ["pem", "der", "point", "jwk", "jwks", "kid"])
def test_a_mac_keyed_with_what_is_public(ring_set, kid, alg, form):
    """Case D37."""
    public = ring_set.private_key("ES256", 1).public_key()
    secret = {
        "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "point": public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        "jwk": json.dumps(public_jwk(public)).encode(),
        "jwks": ring_set.rings.jwks(),
        "kid": kid.encode(),
    }[form]
    for claimed in (alg, "ES256"):
        head = f"{segment({'alg': claimed, 'kid': kid, 'typ': 'at+jwt'})}.{segment(PAYLOAD)}"
        mac = hmac.digest(secret, head.encode(), f"sha{alg[2:]}")
        refuse(ring_set.rings, f"{head}.{segment(mac)}")


@pytest.fixture(scope="module")
def all_rings(shared_ring_set):
    """A ring of every algorithm that the tests of confusion need."""
    for alg in ("ES256", "ES384", "RS256", "PS256", "EdDSA"):
        shared_ring_set.add(alg)
    return shared_ring_set


def test_the_key_alone_says_which_algorithm(all_rings):
    """Case D38."""
    names = all_rings.rings.ring_names()
    for signer in names:
        for claimed in names:
            header = {"alg": claimed, "kid": all_rings.key(signer, 1).kid, "typ": "at+jwt"}
            head = f"{segment(header)}.{segment(PAYLOAD)}"
            (signature,) = all_rings.backend.sign(signer, "1", signer, [head.encode()])
            token = f"{head}.{segment(signature)}"
            if claimed == signer:
                assert all_rings.rings.verify(token).ring == signer
            else:
                refuse(all_rings.rings, token)


def test_the_rsa_schemes_are_not_exchanged(all_rings):
    """Case D38."""
    header = {"alg": "PS256", "kid": all_rings.key("PS256", 1).kid, "typ": "at+jwt"}
    head = f"{segment(header)}.{segment(PAYLOAD)}"
    private = all_rings.private_key("PS256", 1)
    longest = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
    for scheme in (padding.PKCS1v15(), longest):
        signature = private.sign(head.encode(), scheme, hashes.SHA256())
        refuse(all_rings.rings, f"{head}.{segment(signature)}")


def test_the_accepted_algorithms_are_those_shown(all_rings):
    """Case D38."""
    assert all_rings.rings.algorithms() == ("ES256", "ES384", "EdDSA", "PS256", "RS256")


@pytest.mark.parametrize("alg", ["ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"])
def test_a_spent_verification_gets_as_far_as_the_signature(empty_ring_set, alg):
    empty_ring_set.add(alg)
    (snapshot,) = empty_ring_set.rings.snapshots()
    dummy = make_dummy_verification(read_ring(snapshot).keys[0])
    with pytest.raises(TokenRefusedError) as caught:
        dummy.key.verify(dummy.signature, dummy.signing_input)
    assert caught.value.signature_checked
    assert empty_ring_set.rings.spend_one_verification() is None


def test_an_rsa_signature_of_another_size_or_beyond_the_modulus(all_rings):
    """Case D36."""
    token = all_rings.rings.sign("RS256", PAYLOAD, typ="at+jwt", lifetime_seconds=1).token
    head = token.rpartition(".")[0]
    for signature in (bytes(256), b"\xff" * 256, bytes(255) + b"\x01", b"s" * 255, b"s" * 257):
        refuse(all_rings.rings, f"{head}.{segment(signature)}")
    other = rsa.generate_private_key(65537, 2048)
    forged = other.sign(head.encode(), padding.PKCS1v15(), hashes.SHA256())
    refuse(all_rings.rings, f"{head}.{segment(forged)}")
