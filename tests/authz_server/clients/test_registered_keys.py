"""The keys with which clients register."""

import json
from contextlib import nullcontext

import pytest

from authz_server.clients.certificate_parser import thumbprint_of
from authz_server.clients.properties import check_properties, merge_properties
from authz_server.clients.registered_keys import require_fitting_algorithm
from authz_server.errors import InvalidChangeError
from support.assertions import jwks_of, new_key
from support.client_certificates import self_signed

KEY = new_key()
JWK = jwks_of(KEY)["keys"][0]
CERTIFIED = self_signed()


def test_a_set_is_stored_without_members_that_are_not_used():
    members = CERTIFIED.jwk() | {"kid": "a", "use": "sig", "x5t#S256": thumbprint_of(CERTIFIED.der)}
    stored = check_properties({"jwks": {"keys": [members | {"iat": 7, "note": "x"}]}})["jwks"]
    assert stored == {"keys": [members]}


REFUSED = {
    "private": {"keys": [KEY.as_dict(private=True)]},
    "symmetric": {"keys": [{"kty": "oct", "k": "A" * 43}]},
    "weak": {"keys": [{"kty": "RSA", "n": "A" * 170, "e": "AQAB"}]},
    "off the curve": {"keys": [JWK | {"x": JWK["y"]}]},
    "for encryption by another": {"keys": [JWK | {"use": "enc", "alg": "ES256"}]},
    "an id twice": {"keys": [JWK | {"kid": "a"}, jwks_of(new_key(), kid="a")["keys"][0]]},
    "a thousand keys": {"keys": [JWK | {"kid": str(number)} for number in range(1_000)]},
    "twenty-one keys": {"keys": [jwks_of(new_key())["keys"][0] for _ in range(21)]},
    "a certificate of another key": {"keys": [JWK | {"x5c": CERTIFIED.jwk()["x5c"]}]},
    "an unreadable certificate": {"keys": [JWK | {"x5c": ["AAAA"]}]},
    "a thumbprint of another certificate": {"keys": [CERTIFIED.jwk() | {"x5t#S256": "A" * 43}]},
    "an older thumbprint of another": {"keys": [CERTIFIED.jwk() | {"x5t": "A" * 27}]},
    "no keys": {"keys": []},
    "a key, not a set": JWK,
    "a list": [JWK],
    "text": json.dumps({"keys": [JWK]}),
    "not JSON": {"keys": [{"kty": {1, 2}}]},
    "too large": {"keys": [JWK | {"x5c": ["A" * 40_000]}]},
}


@pytest.mark.parametrize("name", REFUSED)
def test_sets_that_are_refused(name: str):
    """Case D55."""
    with pytest.raises(InvalidChangeError, match=r"^jwks: "):
        check_properties({"jwks": REFUSED[name]})


@pytest.mark.parametrize(
    "uri",
    [
        *("http://keys.example/jwks", "ftp://keys.example/", "file:///etc/passwd", "keys.example"),
        *("https://user@keys.example/", "https://keys.example/#x", "https:///jwks", "", 7, ["x"]),
        *("https://2130706433/", "https://0x7f.1/", "https://keys.example:25/", "https://a" * 300),
    ],
)
def test_addresses_that_are_refused(uri: object):
    """Case H92."""
    with pytest.raises(InvalidChangeError, match=r"^jwks_uri: "):
        check_properties({"jwks_uri": uri})


def test_a_client_has_one_source_of_keys():
    stored = merge_properties({}, check_properties({"jwks": {"keys": [JWK]}}))
    address = check_properties({"jwks_uri": "https://keys.example/jwks"})
    with pytest.raises(InvalidChangeError, match="either jwks or jwks_uri"):
        merge_properties(stored, address)
    assert merge_properties(stored, {**address, "jwks": None}) == address


@pytest.mark.parametrize("alg", ["none", "ES256K", "", 7, ["ES256"]])
def test_algorithms_that_are_refused(alg: object):
    with pytest.raises(InvalidChangeError, match=r"^token_endpoint_auth_signing_alg: "):
        check_properties({"token_endpoint_auth_signing_alg": alg})


EDWARDS = new_key("EdDSA").as_dict(private=False)


@pytest.mark.parametrize(
    ("method", "alg", "keys", "member"),
    [
        ("private_key_jwt", "HS256", [JWK], "token_endpoint_auth_signing_alg"),
        ("private_key_jwt", "HS512", None, "token_endpoint_auth_signing_alg"),
        ("client_secret_jwt", "ES256", None, "token_endpoint_auth_signing_alg"),
        ("private_key_jwt", "PS256", [JWK], "jwks"),
        ("private_key_jwt", "ES256", [EDWARDS], "jwks"),
        ("private_key_jwt", "ES256", [JWK], ""),
        ("private_key_jwt", "Ed25519", [JWK, EDWARDS], ""),
        ("private_key_jwt", "PS256", None, ""),
        ("client_secret_jwt", "HS384", None, ""),
        ("client_secret", "ES256", None, ""),
    ],
)
def test_the_one_algorithm_fits_the_method_and_a_key(
    method: str, alg: str, keys: list | None, member: str
):
    """Case D38: by another combination no assertion could authenticate the client."""
    properties = {"token_endpoint_auth_signing_alg": alg}
    if keys is not None:
        properties["jwks"] = {"keys": keys}
    with pytest.raises(InvalidChangeError, match=f"^{member}: ") if member else nullcontext():
        require_fitting_algorithm(method, properties)
