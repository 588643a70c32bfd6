"""Clients that others wrote authenticate by assertions: token, introspection and revocation."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests_oauth2client
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import ClientSecretJWT, PrivateKeyJWT

from authz_server.settings import load_settings
from support.assertions import Signer, make_signer
from support.databases import copied_database
from support.live_server import LiveServer
from support.node import run_script
from support.parties import Parties
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings

SCOPE = "mapper/link"
ALGORITHMS = ("ES256", "PS256", "Ed25519", "HS256")
WEB_CRYPTO = {
    "ES256": {"name": "ECDSA", "namedCurve": "P-256"},
    "PS256": {"name": "RSA-PSS", "hash": "SHA-256"},
    "Ed25519": {"name": "Ed25519"},
}


@dataclass(frozen=True)
class Scene:
    """A server, and a client for each algorithm."""

    issuer: str
    signers: dict[str, Signer]

    @property
    def metadata_url(self) -> str:
        return f"{self.issuer}/.well-known/oauth-authorization-server"


@pytest.fixture(scope="module", params=["sqlite"])
def scene(request, tmp_path_factory) -> Iterator[Scene]:
    """A live server under its own address as issuer, on SQLite unless a test names another."""
    directory = tmp_path_factory.mktemp("assertions")
    with copied_database(request, request.param, directory) as database_url:

        def write(server: dict[str, Any]) -> Path:
            issuer = f"http://127.0.0.1:{server['port']}"
            return write_settings(directory, database_url, {"issuer": issuer, "server": server})

        server = LiveServer(write, directory)
        parties = Parties(load_settings(server.settings_path), SecretsWatch())
        with parties.together():
            parties.create_first_keys()
            parties.make_resource_server("mapper")
            signers = {
                alg: make_signer(parties, f"signer-{alg.lower()}", time.time, alg)
                for alg in ALGORITHMS
            }
        with server:
            yield Scene(server.base_url, signers)


def verify_seen(signer: Signer, scope: str, before: dict, after: dict) -> None:
    """The token was the client's, and its revocation ended it."""
    assert (scope, before["active"], before["client_id"]) == (SCOPE, True, signer.id)
    assert after == {"active": False}


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_requests_oauth2client(scene: Scene, alg: str):
    """Cases D38, D48."""
    signer = scene.signers[alg]
    if alg == "HS256":
        secret = signer.key.raw_value.decode()
        auth = requests_oauth2client.ClientSecretJwt(signer.id, secret, aud=scene.issuer)
    else:
        jwk = signer.key.as_dict(private=True) | {"kid": signer.kid}
        # The library writes RFC 8037's name.
        name = "EdDSA" if alg == "Ed25519" else alg
        auth = requests_oauth2client.PrivateKeyJwt(signer.id, jwk, alg=name, aud=scene.issuer)
    with requests_oauth2client.OAuth2Client.from_discovery_endpoint(
        scene.metadata_url,
        scene.issuer,
        auth=auth,
        testing=True,  # plain http is the only thing that this lets pass
    ) as client:
        token = client.client_credentials(scope=SCOPE)
        before = client.introspect_token(token)
        assert client.revoke_access_token(token) is True
        verify_seen(signer, token.scope, before, client.introspect_token(token))


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_authlib(scene: Scene, alg: str):
    """Cases D38, D48."""
    signer = scene.signers[alg]
    kind = ClientSecretJWT if alg == "HS256" else PrivateKeyJWT

    class Method(kind):
        """Assertions for the issuer, of a minute; the library's own live for an hour."""

        def sign(self, auth, _token_endpoint):
            self.claims = {"exp": int(time.time()) + 60}
            return super().sign(auth, scene.issuer)

    with closing(
        OAuth2Session(
            signer.id,
            signer.key,
            token_endpoint_auth_method=kind.name,
            revocation_endpoint_auth_method=kind.name,
        )
    ) as session:
        session.register_client_auth_method(Method(alg=alg, headers={"kid": signer.kid or "x"}))
        metadata = session.get(scene.metadata_url, withhold_token=True).json()
        session.metadata |= metadata
        token = session.fetch_token(grant_type="client_credentials", scope=SCOPE)
        presented = {"token": token["access_token"]}
        url = metadata["introspection_endpoint"]
        before = session.introspect_token(url, **presented).json()
        ended = session.revoke_token(metadata["revocation_endpoint"], **presented)
        assert ended.status_code == 200
        verify_seen(
            signer, token["scope"], before, session.introspect_token(url, **presented).json()
        )


def values_of(scene: Scene, signer: Signer) -> dict[str, Any]:
    """Return what a script for Node needs to know of a client and its server."""
    symmetric = signer.alg == "HS256"
    return {
        "issuer": scene.issuer,
        "scope": SCOPE,
        "algorithm": WEB_CRYPTO.get(signer.alg),
        "secret": signer.key.raw_value.decode() if symmetric else None,
        "jwk": None if symmetric else signer.key.as_dict(private=True) | {"kid": signer.kid},
    }


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_oauth4webapi(scene: Scene, alg: str, oauth4webapi):
    """Cases D38, D48."""
    signer = scene.signers[alg]
    values = values_of(scene, signer) | {"client": signer.id}
    seen = run_script(oauth4webapi, "assertions.mjs", values)
    verify_seen(signer, seen["token"]["scope"], seen["before"], seen["after"])


@pytest.mark.parametrize(
    ("scene", "alg", "kind"),
    [
        *(("sqlite", alg, "bearer") for alg in ALGORITHMS),
        ("sqlite", "ES256", "dpop"),
        ("postgresql", "ES256", "bearer"),
        ("postgresql", "ES256", "dpop"),
    ],
    indirect=["scene"],
    scope="module",
)
def test_openid_client(scene: Scene, alg: str, kind: str, oauth4webapi):
    """Cases D38, D48. With and without a key that the token is bound to."""
    signer, bound = scene.signers[alg], kind == "dpop"
    own = {"id": signer.id, "asserted": True, "bound": bound}
    seen = run_script(oauth4webapi, "openid_client.mjs", values_of(scene, signer) | own)
    first, second = seen["tokens"]
    assert first["access_token"] != second["access_token"]
    assert first["token_type"].lower() == kind
    assert seen["before"].get("cnf") == ({"jkt": seen["thumbprint"]} if bound else None)
    assert seen["errors"] == []
    verify_seen(signer, first["scope"], seen["before"], seen["after"])
