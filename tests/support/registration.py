"""Dynamic registration as its clients use it: initial access tokens, JSON in and out."""

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from werkzeug.test import TestResponse

from support.parties import ACTOR, Credentials
from support.protocol import Protocol, running_protocol

REGISTER = "/oauth2/register"
UNLIMITED = {"enabled": True, "requests_per_window": 1_000_000}


class Registrar:
    """Registers clients with an application.

    Args:
        protocol: the application, with registration enabled.
    """

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol

    def initial_token(self, *scopes: str, **values: Any) -> str:
        """Create an initial access token, of one use and for a day unless told otherwise."""
        values.setdefault("expires_at", self.protocol.clock() + timedelta(days=1))
        with self.protocol.parties.change() as (services, session):
            _, token = services.initial_tokens.create(session, actor=ACTOR, scopes=scopes, **values)
        self.protocol.parties.watch.note(token, "initial access token")
        return token

    def send(
        self,
        method: str,
        path: str,
        document: object = None,
        token: str = "",
        *,
        address: str = "127.0.0.1",
        **headers: str,
    ) -> TestResponse:
        """Send a request; a document that is not bytes is sent as JSON."""
        base = {"REMOTE_ADDR": address}
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent.setdefault("Authorization", f"Bearer {token}")
        if document is None:
            return self.protocol.send(method, path, headers=sent, environ_base=base)
        sent.setdefault("Content-Type", "application/json")
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.protocol.send(method, path, data=body, headers=sent, environ_base=base)

    def register(self, document: object, token: str = "", **headers: str) -> TestResponse:
        """Send a registration; note the secrets in its answer."""
        return self._noted(self.send("POST", REGISTER, document, token, **headers))

    def new(self, *scopes: str, **document: Any) -> dict[str, Any]:
        """Register a client for these scopes; return the answer."""
        token = self.initial_token(*(scopes or ("mapper/link",)))
        answer = self.register(document, token)
        assert answer.status_code == 201, answer.text
        return answer.json

    def manage(
        self,
        method: str,
        client: Mapping[str, Any],
        document: object = None,
        token: str = "",
        address: str = "127.0.0.1",
    ) -> TestResponse:
        """Send a request to a client's configuration endpoint, with its token unless told."""
        path = client["registration_client_uri"].removeprefix("https://authz.example")
        token = token or client["registration_access_token"]
        return self._noted(self.send(method, path, document, token, address=address))

    def credentials(self, client: Mapping[str, Any]) -> Credentials:
        """Return the credentials in an answer."""
        method = client["token_endpoint_auth_method"]
        return Credentials(client["client_id"], client["client_secret"], method)

    def _noted(self, answer: TestResponse) -> TestResponse:
        members = answer.json if answer.is_json and answer.data else {}
        for name in ("client_secret", "registration_access_token"):
            if name in members:
                self.protocol.parties.watch.note(members[name], name)
        return answer


@pytest.fixture(scope="module")
def registrar(module_database_url: str, tmp_path_factory) -> Iterator[Registrar]:
    """An application with registration enabled, once for each database."""
    directory = tmp_path_factory.mktemp("registration")
    with running_protocol(directory, module_database_url, registration=UNLIMITED) as protocol:
        yield Registrar(protocol)
