"""The key of a published set to which responses are encrypted."""

import json

import pytest
from joserfc.jwk import ECKey, RSAKey
from msgspec.structs import replace

from authz_server.clients.authentication.authenticator import STAND_IN
from authz_server.clients.encryption_keys import EncryptionKeys, find_encryption_key
from authz_server.clients.fetching import FetchError
from authz_server.clients.properties import ClientProperties
from authz_server.waiting import run
from support.scripted_server import ScriptedServer, answer_with

EC = ECKey.generate_key("P-256").as_dict(private=False) | {"use": "enc"}
RSA = RSAKey.generate_key(2_048).as_dict(private=False) | {"use": "enc"}
ODD = [
    None,
    5,
    [],
    {},
    {"use": "enc"},
    {"use": ["enc"]},
    EC | {"use": "sig"},
    EC | {"alg": []},
    EC | {"alg": {}},
    EC | {"alg": "ECDH-ES+A128KW"},
    EC | {"crv": []},
    EC | {"kty": {}},
    EC | {"x": 1},
    EC | {"kid": 7},
    EC | {"key_ops": ["sign"]},
    RSA | {"e": RSA["n"]},
]


def test_keys_that_cannot_be_used_are_passed_over():
    """RFC 7517, 5: a set may have keys of kinds that a reader does not know."""
    good = EC | {"kid": "good"}
    assert find_encryption_key({"keys": [*ODD, good, EC]}, "ECDH-ES").kid == "good"


def test_a_key_needs_no_kid_and_the_first_of_several_is_used():
    assert find_encryption_key({"keys": [RSA, EC, EC | {"kid": "b"}]}, "ECDH-ES").kid == ""


@pytest.mark.parametrize("document", [{}, {"keys": None}, {"keys": {}}, {"keys": ODD}])
def test_a_set_without_a_fitting_key_is_no_set(document):
    with pytest.raises(FetchError, match="no key for RSA-OAEP-256 with use enc"):
        find_encryption_key(document, "RSA-OAEP-256")


def test_a_set_that_was_mended_is_found_before_its_cache_ends(make_fetcher, monotonic):
    document = [b"<html>"]

    def answer(connection, request) -> bool:
        return answer_with(document[0])(connection, request)

    with ScriptedServer(answer) as server:
        keys = EncryptionKeys(make_fetcher(minimum_cache_seconds=30))
        properties = ClientProperties(
            jwks_uri=server.address, introspection_encrypted_response_alg="ECDH-ES"
        )
        caller = replace(STAND_IN, id="partner", properties=properties)
        for _ in range(2):
            with pytest.raises(FetchError):
                run(keys.find(caller))
        document[0] = json.dumps({"keys": [EC]}).encode()
        monotonic.now += 31
        found = run(keys.find(caller))
    assert found.alg == "ECDH-ES"
    assert len(server.requests) == 2
