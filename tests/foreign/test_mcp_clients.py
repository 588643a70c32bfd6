"""The MCP SDKs' client-credentials providers find the server through an API, and call the API."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from authz_server.settings import load_settings
from support.assertions import Signer, make_signer
from support.databases import copied_database
from support.live_server import LiveServer
from support.node import run_script
from support.parties import Credentials, Parties
from support.scripted_server import ScriptedServer
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings

SCOPE = "mapper/link"
METADATA = "/.well-known/oauth-protected-resource"
#: How the API names itself, on each database; both are the identifier that is registered.
SPELLINGS = {"sqlite": "", "postgresql": "/"}


class Api:
    """An API on loopback that asks for a token and names its authorization server (RFC 9728).

    Args:
        spelling: ends the name that the API gives itself.
    """

    def __init__(self, spelling: str) -> None:
        self.issuer, self.spelling = "", spelling
        self.tokens: list[str] = []
        self.server = ScriptedServer(self._answer)

    def _answer(self, connection: socket.socket, request: bytes) -> bool:
        head = request.decode().split("\r\n")
        lines = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        if head[0].startswith(f"GET {METADATA}"):
            resource = self.server.address + self.spelling
            # The Python SDK asks for these scopes, or for all that the authorization server names.
            scopes = {"scopes_supported": [SCOPE]}
            document = {"resource": resource, "authorization_servers": [self.issuer], **scopes}
            self._send(connection, "200 OK", json.dumps(document))
        elif "authorization" not in lines:
            challenge = f'Bearer resource_metadata="{self.server.address}{METADATA}"'
            self._send(connection, "401 Unauthorized", "{}", f"WWW-Authenticate: {challenge}\r\n")
        else:
            (sent,) = (line for line in head if line.lower().startswith("authorization: bearer "))
            self.tokens.append(sent.rpartition(" ")[2])
            self._send(connection, "200 OK", "{}")
        return False

    def _send(self, connection: socket.socket, status: str, body: str, more: str = "") -> None:
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(
            f"HTTP/1.1 {status}\r\n{length}Connection: close\r\n{more}\r\n{body}".encode()
        )


@dataclass(frozen=True)
class Scene:
    """A server with an authorization endpoint that refuses, an API and its clients."""

    issuer: str
    api: Api
    api_credentials: Credentials
    client: Credentials
    signer: Signer

    def verify_called(self, client_id: str) -> None:
        """The API received one token, which is this client's and for the API."""
        (token,) = self.api.tokens
        described = httpx.post(
            f"{self.issuer}/oauth2/introspect",
            data={"token": token},
            auth=(self.api_credentials.id, self.api_credentials.secret),
        ).json()
        seen = {name: described.get(name) for name in ("active", "client_id", "aud", "scope")}
        audience = self.api.server.address
        assert seen == {"active": True, "client_id": client_id, "aud": audience, "scope": SCOPE}


@pytest.fixture(scope="module", params=SPELLINGS)
def running(request, tmp_path_factory) -> Iterator[Scene]:
    """A live server under its own address as issuer."""
    directory, api = tmp_path_factory.mktemp("mcp"), Api(SPELLINGS[request.param])
    with copied_database(request, request.param, directory) as database_url, api.server:

        def write(server: dict[str, Any]) -> Path:
            issuer = f"http://127.0.0.1:{server['port']}"
            tables = {"issuer": issuer, "server": server | {"authorization_endpoint": True}}
            return write_settings(directory, database_url, tables)

        server = LiveServer(write, directory)
        parties = Parties(load_settings(server.settings_path), SecretsWatch())
        parties.create_first_keys()
        mapper = parties.make_resource_server("mapper", identifier=api.server.address)
        client = parties.make_client("secret-holder", authentication_method="client_secret")
        signer = make_signer(parties, "key-holder", time.time)
        with server:
            api.issuer = server.base_url
            yield Scene(server.base_url, api, mapper, client, signer)


@pytest.fixture
def scene(running: Scene) -> Scene:
    """The server, and an API that has not been called."""
    running.api.tokens.clear()
    return running


class Storage:
    """Keeps the tokens of the Python SDK."""

    async def get_tokens(self):
        return None

    async def set_tokens(self, tokens):
        assert tokens.token_type == "Bearer"

    async def get_client_info(self):
        return None

    async def set_client_info(self, client_info):
        raise AssertionError(client_info)


@pytest.fixture(scope="module")
def sdk():
    """The module of the SDK, whose import takes a second: not in each process that collects."""
    from mcp.client.auth.extensions import client_credentials  # noqa: PLC0415

    return client_credentials


def call(scene: Scene, provider: Any) -> int:
    """Return the status of a call of the API with a provider's token."""
    import httpx2  # noqa: PLC0415 - likewise

    async def run() -> int:
        async with httpx2.AsyncClient(auth=provider) as client:
            return (await client.get(scene.api.server.address)).status_code

    return asyncio.run(run())


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_python_sdk_with_a_secret(scene: Scene, sdk, method):
    """Case C31."""
    provider = sdk.ClientCredentialsOAuthProvider(
        scene.api.server.address,
        Storage(),
        scene.client.id,
        scene.client.secret,
        method,
        SCOPE,
        scene.issuer,
    )
    assert call(scene, provider) == 200
    scene.verify_called(scene.client.id)


def test_python_sdk_with_a_key(scene: Scene, sdk):
    """Case D48."""
    client_id = scene.signer.id
    parameters = sdk.SignedJWTParameters(
        issuer=client_id,
        subject=client_id,
        signing_key=scene.signer.key.as_pem(private=True).decode(),
        signing_algorithm="ES256",
    )
    provider = sdk.PrivateKeyJWTOAuthProvider(
        scene.api.server.address,
        Storage(),
        client_id,
        parameters.create_assertion_provider(),
        SCOPE,
        scene.issuer,
    )
    assert call(scene, provider) == 200
    scene.verify_called(client_id)


@pytest.mark.parametrize("proof", ["secret", "key"])
def test_typescript_sdk(scene: Scene, proof: str, mcp_typescript):
    """Cases C31, D48."""
    values = {"issuer": scene.issuer, "scope": SCOPE, "resource": scene.api.server.address}
    own = (
        {"id": scene.client.id, "secret": scene.client.secret}
        if proof == "secret"
        else {"id": scene.signer.id, "jwk": scene.signer.key.as_dict(private=True)}
    )
    seen = run_script(mcp_typescript, "credentials.mjs", values | own)
    assert (seen["result"], seen["status"]) == ("AUTHORIZED", 200)
    scene.verify_called(own["id"])
