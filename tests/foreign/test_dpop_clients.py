"""Clients that others wrote bind their tokens by DPoP, without and with nonces of the server."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests_oauth2client

from authz_server.settings import load_settings
from support.databases import copied_database
from support.live_server import LiveServer
from support.node import run_script
from support.parties import RESOURCE_SERVERS, Credentials, Parties, make_demo
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings

SCOPE = "mapper/link"


@dataclass(frozen=True)
class Scene:
    """A server, who uses it, and whether proofs need a nonce of the server."""

    issuer: str
    client: Credentials
    mapper: Credentials
    nonce: str


@pytest.fixture(scope="module", params=[("off", "sqlite"), ("required", "postgresql")], ids=str)
def scene(request, tmp_path_factory) -> Iterator[Scene]:
    """A live server under its own address as issuer."""
    directory = tmp_path_factory.mktemp("dpop")
    nonce, dialect = request.param
    with copied_database(request, dialect, directory) as database_url:

        def write(server: dict[str, Any]) -> Path:
            issuer = f"http://127.0.0.1:{server['port']}"
            tables = {"issuer": issuer, "server": server, "dpop": {"nonce": nonce}}
            return write_settings(directory, database_url, tables)

        server = LiveServer(write, directory)
        parties = Parties(load_settings(server.settings_path), SecretsWatch())
        parties.create_first_keys()
        demo = make_demo(parties)
        client = parties.make_client("bound", properties={"dpop_bound_access_tokens": True})
        with server:
            yield Scene(server.base_url, client, demo.mapper, nonce)


def test_requests_oauth2client(scene):
    """Case A16."""
    document = f"{scene.issuer}/.well-known/oauth-authorization-server"
    with requests_oauth2client.OAuth2Client.from_discovery_endpoint(
        document,
        scene.issuer,
        auth=requests_oauth2client.ClientSecretPost(scene.client.id, scene.client.secret),
        dpop_bound_access_tokens=True,
        testing=True,  # plain http is the only thing that this lets pass
    ) as client:
        token = client.client_credentials(scope=SCOPE)
        again = client.client_credentials(scope=SCOPE, dpop_key=token.dpop_key)
    assert isinstance(token, requests_oauth2client.DPoPToken)
    assert (token.token_type, token.scope) == ("DPoP", SCOPE)
    assert bool(token.dpop_key.as_nonce) == (scene.nonce == "required")
    with requests_oauth2client.OAuth2Client.from_discovery_endpoint(
        document,
        scene.issuer,
        auth=requests_oauth2client.ClientSecretBasic(scene.mapper.id, scene.mapper.secret),
        testing=True,
    ) as mapper:
        described = [mapper.introspect_token(each.access_token) for each in (token, again)]
    assert [each["cnf"] for each in described] == [{"jkt": token.dpop_key.dpop_jkt}] * 2


def test_oauth4webapi(scene, oauth4webapi):
    """Case A16."""
    seen = run_script(
        oauth4webapi,
        "dpop.mjs",
        {
            "issuer": scene.issuer,
            "client": {"id": scene.client.id, "secret": scene.client.secret},
            "resourceServer": {"id": scene.mapper.id, "secret": scene.mapper.secret},
            "scope": SCOPE,
            "audience": RESOURCE_SERVERS["mapper"],
        },
    )
    # Only the first request lacks the nonce.
    assert seen["errors"] == (["use_dpop_nonce"] if scene.nonce == "required" else [])
    assert [token["token_type"].lower() for token in seen["tokens"]] == ["dpop", "dpop"]
    assert seen["described"]["cnf"] == {"jkt": seen["thumbprint"]}
    assert seen["described"]["token_type"] == "DPoP"
    # The resource server's part of the library refuses the token with another key.
    assert seen["right"] == seen["described"]["jti"]
    assert "confirmation mismatch" in seen["wrong"]


def test_openid_client(scene, oauth4webapi):
    """Case A16. The library repeats a request by itself when it learns the nonce."""
    values = {"issuer": scene.issuer, "id": scene.client.id, "secret": scene.client.secret}
    seen = run_script(oauth4webapi, "openid_client.mjs", values | {"scope": SCOPE, "bound": True})
    # Later requests, which include the second token's, hold the nonce.
    assert seen["errors"] == (["use_dpop_nonce"] if scene.nonce == "required" else [])
    assert [token["token_type"].lower() for token in seen["tokens"]] == ["dpop", "dpop"]
    assert seen["before"]["cnf"] == {"jkt": seen["thumbprint"]}
    assert seen["after"] == {"active": False}
