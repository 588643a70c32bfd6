"""The methods that use an assertion, by the contract of every method."""

import time
from collections.abc import Iterator

import msgspec
import pytest

from authz_server.clients.authentication.assertions import AssertionRules
from authz_server.clients.authentication.client_secret_jwt import ClientSecretJwt
from authz_server.clients.authentication.method import AuthenticationRequest
from authz_server.clients.authentication.private_key_jwt import PrivateKeyJwt
from authz_server.clients.cache import SecretEntry
from authz_server.clients.fetching import Fetcher
from authz_server.clients.key_sets import KeySets
from authz_server.clients.properties import ClientProperties
from authz_server.clients.secrets import SecretScheme
from authz_server.database.orm import open_database
from authz_server.database.single_use import SingleUse
from authz_server.plugin_api.testing import ClientAuthenticationMethodContract
from authz_server.settings import DatabaseSettings, OutboundSettings
from support.assertions import Signer, jwks_of, new_key
from support.settings_file import ISSUER

BASE = ClientAuthenticationMethodContract.client
KEY = new_key()
SECRETS = SecretScheme(b"p" * 32, argon2_concurrency=1)
RECORD, SECRET = SECRETS.derived_record()
RULES = AssertionRules(ISSUER, {"ES256", "HS256"}, 10)


@pytest.fixture
def single_use(sqlite_url: str) -> Iterator[SingleUse]:
    database = open_database(DatabaseSettings(url=sqlite_url))
    yield SingleUse(database)
    database.close()


def request_with(signer: Signer, **changes: object) -> AuthenticationRequest:
    return AuthenticationRequest(signer.form(signer.assertion(**changes)), {}, "198.51.100.7")


class AssertionContract(ClientAuthenticationMethodContract):
    signer: Signer

    @pytest.fixture
    def right(self) -> AuthenticationRequest:
        return request_with(self.signer)

    @pytest.fixture(params=["signature", "audience"])
    def wrong(self, request) -> AuthenticationRequest:
        if request.param == "audience":
            return request_with(self.signer, aud=f"{ISSUER}/oauth2/token")
        other = new_key() if self.signer.key is KEY else "other" * 20
        return request_with(Signer(BASE.id, other, time.time, self.signer.alg))


class TestPrivateKeyJwt(AssertionContract):
    client = msgspec.structs.replace(BASE, properties=ClientProperties(jwks=jwks_of(KEY)))
    signer = Signer(BASE.id, KEY, time.time)

    @pytest.fixture
    def method(self, single_use: SingleUse) -> PrivateKeyJwt:
        return PrivateKeyJwt(RULES, single_use, KeySets(Fetcher(OutboundSettings())))


class TestClientSecretJwt(AssertionContract):
    secret = SecretEntry("the-secret", b"", "", float("inf"), SECRETS.salt_of(RECORD))
    client = msgspec.structs.replace(BASE, secrets=(secret,))
    signer = Signer(BASE.id, SECRET, time.time, "HS256")

    @pytest.fixture
    def method(self, single_use: SingleUse) -> ClientSecretJwt:
        return ClientSecretJwt(RULES, single_use, SECRETS)


@pytest.mark.parametrize("issuer", ["https://issuer.example", "contract-client"])
def test_an_assertion_of_another_party_is_left_to_its_method(single_use: SingleUse, issuer: str):
    signer = Signer(BASE.id, KEY, time.time)
    method = PrivateKeyJwt(
        RULES,
        single_use,
        KeySets(Fetcher(OutboundSettings())),
        is_foreign=lambda each: each.startswith("https:"),
    )
    recognised = method.recognise(request_with(signer, iss=issuer))
    assert (recognised is None) == (issuer != BASE.id)
