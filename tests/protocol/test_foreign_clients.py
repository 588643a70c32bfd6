"""OAuth clients that others wrote: metadata, token, introspection and revocation with each."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
import requests_oauth2client
from authlib.integrations.requests_client import OAuth2Session
from oauthlib.oauth2 import BackendApplicationClient
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session as OAuthlibSession

from authz_server.settings import load_settings
from support.live_server import LiveServer
from support.node import OAUTH4WEBAPI, run_script
from support.parties import RESOURCE_SERVERS, Credentials, Parties, demo_with_keys
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings, write_shared_secrets

SCOPE = "mapper/link"
AUDIENCE = RESOURCE_SERVERS["mapper"]
METHODS = ("client_secret_post", "client_secret_basic")


@dataclass(frozen=True)
class Scene:
    """A server, and who uses it."""

    issuer: str
    clients: dict[str, Credentials]
    mapper: Credentials

    @property
    def metadata_url(self) -> str:
        return f"{self.issuer}/.well-known/oauth-authorization-server"


@pytest.fixture(scope="module")
def scene(module_database_url, tmp_path_factory) -> Iterator[Scene]:
    """A live server under its own address as issuer, shared by this file's tests."""
    directory = tmp_path_factory.mktemp("foreign")

    def write(server: dict[str, Any]) -> Path:
        issuer = f"http://127.0.0.1:{server['port']}"
        return write_settings(directory, module_database_url, {"issuer": issuer, "server": server})

    write_shared_secrets(directory)
    server = LiveServer(write, directory)
    parties = Parties(load_settings(server.settings_path), SecretsWatch())
    demo = demo_with_keys(parties, module_database_url, directory)
    with server:
        yield Scene(server.base_url, dict(demo.clients), demo.mapper)


class Seen(NamedTuple):
    """What a client library made of the server's answers."""

    issuer: str
    scope: str
    before: dict[str, Any]
    after: dict[str, Any]


def verify_seen(seen, scene, client):
    """The token was the client's, for the mapper, and its revocation ended it."""
    assert (seen.issuer, seen.scope) == (scene.issuer, SCOPE)
    described = {name: seen.before[name] for name in ("active", "client_id", "scope", "aud")}
    assert described == {"active": True, "client_id": client.id, "scope": SCOPE, "aud": AUDIENCE}
    assert seen.after == {"active": False}


@pytest.mark.parametrize("method", METHODS)
def test_authlib(scene, method):
    """Case F67. Case C31."""
    client, mapper = scene.clients[method], scene.mapper
    with (
        closing(authlib_session(OAuth2Session, client)) as ours,
        closing(authlib_session(OAuth2Session, mapper)) as theirs,
    ):
        metadata = ours.get(scene.metadata_url, withhold_token=True).json()
        ours.metadata |= metadata
        token = ours.fetch_token(grant_type="client_credentials", scope=SCOPE)
        url = metadata["introspection_endpoint"]
        before = theirs.introspect_token(url, token=token["access_token"]).json()
        ended = ours.revoke_token(metadata["revocation_endpoint"], token=token["access_token"])
        assert ended.status_code == 200
        after = theirs.introspect_token(url, token=token["access_token"]).json()
    verify_seen(Seen(metadata["issuer"], token["scope"], before, after), scene, client)


def authlib_session(kind, party):
    return kind(
        party.id,
        party.secret,
        token_endpoint_auth_method=party.method,
        revocation_endpoint_auth_method=party.method,
    )


@pytest.mark.parametrize("method", METHODS)
def test_requests_oauthlib(scene, method, monkeypatch):
    """Case F67."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # the server under test is on loopback
    client, mapper = scene.clients[method], scene.mapper
    in_form = method == "client_secret_post"
    backend = BackendApplicationClient(client.id, scope=[SCOPE])
    proof = None if in_form else HTTPBasicAuth(client.id, client.secret)
    secret = {"client_secret": client.secret} if in_form else {}
    with OAuthlibSession(client=backend) as session:
        metadata = session.get(scene.metadata_url, withhold_token=True).json()
        token = session.fetch_token(
            metadata["token_endpoint"], auth=proof, include_client_id=in_form, **secret
        )

        def introspect() -> Any:
            return requests.post(
                metadata["introspection_endpoint"],
                data={"token": token["access_token"]},
                auth=HTTPBasicAuth(mapper.id, mapper.secret),
                timeout=10,
            ).json()

        before = introspect()
        credentials = {"client_id": client.id, **secret} if in_form else {}
        url, headers, body = backend.prepare_token_revocation_request(
            metadata["revocation_endpoint"], token["access_token"], **credentials
        )
        ended = requests.post(url, data=body, headers=headers, auth=proof, timeout=10)
        assert ended.status_code == 200, ended.text
        after = introspect()
    verify_seen(Seen(metadata["issuer"], " ".join(token["scope"]), before, after), scene, client)


@pytest.mark.parametrize("document", ["oauth-authorization-server", "openid-configuration"])
@pytest.mark.parametrize("method", METHODS)
def test_requests_oauth2client(scene, method, document):
    """Case F67."""
    party = scene.clients[method]
    with (
        discovered(scene, party, document) as client,
        discovered(scene, scene.mapper, document) as mapper,
    ):
        token = client.client_credentials(scope=SCOPE)
        before = mapper.introspect_token(token)
        assert client.revoke_access_token(token) is True
        after = mapper.introspect_token(token)
    assert token.expires_in in range(890, 901)
    assert {key["alg"] for key in client.authorization_server_jwks["keys"]} == {"ES256"}
    verify_seen(Seen(client.issuer, token.scope, before, after), scene, party)


def discovered(scene, party, document):
    method = {
        "client_secret_post": requests_oauth2client.ClientSecretPost,
        "client_secret_basic": requests_oauth2client.ClientSecretBasic,
    }[party.method]
    return requests_oauth2client.OAuth2Client.from_discovery_endpoint(
        f"{scene.issuer}/.well-known/{document}",
        scene.issuer,
        auth=method(party.id, party.secret),
        testing=True,  # plain http is the only thing that this lets pass
    )


@pytest.mark.parametrize("method", METHODS)
def test_oauth4webapi(scene, method, oauth4webapi):
    """Case F67. Case C30."""
    client = scene.clients[method]
    seen = run_script(
        oauth4webapi,
        "exchange.mjs",
        {
            "issuer": scene.issuer,
            "client": {"id": client.id, "secret": client.secret},
            "resourceServer": {"id": scene.mapper.id, "secret": scene.mapper.secret},
            "method": method,
            "scope": SCOPE,
            "audience": AUDIENCE,
        },
    )
    metadata = seen["documents"]["oauth2"]
    assert seen["documents"]["oidc"].items() >= metadata.items()
    verify_seen(
        Seen(metadata["issuer"], seen["token"]["scope"], seen["before"], seen["after"]),
        scene,
        client,
    )
    assert seen["signed"] == seen["before"]
    assert (seen["claims"]["jti"], seen["claims"]["aud"]) == (seen["before"]["jti"], AUDIENCE)


def test_the_lock_files_name_contents_and_no_place():
    locks = sorted(OAUTH4WEBAPI.parent.glob("*/package-lock.json"))
    assert len(locks) >= 3
    for path in locks:
        lock = json.loads(path.read_text())
        packages = {name: each for name, each in lock["packages"].items() if name}
        assert packages
        assert all(each["integrity"].startswith("sha512-") for each in packages.values())
        assert not any("resolved" in each for each in packages.values())
