"""A web server with the metadata documents of clients, and an application that accepts them."""

import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from werkzeug.test import TestResponse

from support.assertions import Signer, jwks_of, new_key
from support.client_certificates import ClientAuthority
from support.protocol import Protocol, running_protocol
from support.scripted_server import ScriptedServer, answer_with

SCOPES = ["mapper.link", "mapper/resolve", "no/such"]
KEY = new_key()


class Publisher:
    """A web server with the documents of clients."""

    def __init__(self) -> None:
        self.documents: dict[str, object] = {}
        self.is_down = False
        self.retry_after = 0
        self.server = ScriptedServer(self._answer)

    @property
    def origin(self) -> str:
        """Its origin."""
        return self.server.address

    def publish(self, path: str, *, without: str = "", **members: Any) -> str:
        """Publish a document that describes a client, with changes; return its address."""
        url = f"{self.origin}{path}"
        document = {
            "client_id": url,
            "client_name": "ERP",
            "token_endpoint_auth_method": "private_key_jwt",
            "grant_types": ["client_credentials"],
            "jwks": jwks_of(KEY),
        } | members
        document.pop(without, None)
        self.documents[path] = document
        return url

    def _answer(self, connection: socket.socket, request: bytes) -> bool:
        path = request.split(b" ")[1].decode()
        document = self.documents.get(path)
        if self.is_down or document is None:
            later = f"Retry-After: {self.retry_after}\r\n" if self.retry_after else ""
            connection.sendall(f"HTTP/1.1 503 X\r\n{later}Content-Length: 0\r\n\r\n".encode())
            return False
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        head = f"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        connection.sendall(head.encode() + b"\r\n\r\n" + body)
        return False


class Site:
    """An application, and the web server whose clients it accepts."""

    def __init__(self, protocol: Protocol, publisher: Publisher) -> None:
        self.protocol, self.publisher = protocol, publisher

    def signer(self, client_id: str) -> Signer:
        """Return a client that signs with the published key."""
        return Signer(client_id, KEY, lambda: self.protocol.clock().timestamp())

    def ask(self, endpoint: str, client_id: str, **fields: str) -> TestResponse:
        """Send a form that succeeds, authenticated by a new assertion of the client."""
        form = self.protocol.form(endpoint) | self.signer(client_id).form() | fields
        return self.protocol.post(endpoint, form)

    def token(self, client_id: str) -> str:
        """Return a new token of the client."""
        answer = self.ask("token", client_id)
        assert answer.status_code == 200, answer.text
        return answer.json["access_token"]

    def last_refusal(self) -> dict[str, Any]:
        """Return the last audit record."""
        return json.loads(self.protocol.audit_trail().splitlines()[-1])


@contextmanager
def running_site(
    directory: Path,
    database_url: str,
    *,
    outbound: Mapping[str, Any] | None = None,
    clients: Mapping[str, Any] | None = None,
    has_twin: bool = False,
    **documents: Any,
) -> Iterator[Site]:
    """Make a site; further settings of its documents and of what is fetched."""
    publisher = Publisher()
    allowed = {publisher.origin: SCOPES}
    with (
        publisher.server,
        running_protocol(
            directory,
            database_url,
            has_twin=has_twin,
            clients=clients or {},
            client_id_documents={"allowed_origins": allowed} | documents,
            outbound={"plain_http": True, "allowed_networks": ["127.0.0.0/8"]} | (outbound or {}),
        ) as protocol,
    ):
        yield Site(protocol, publisher)


@contextmanager
def publishing_keys(tmp_path, keys: dict[str, Any]) -> Iterator[ScriptedServer]:
    """Publish a key set by https; `authority.pem` is the authority of the server."""
    authority = ClientAuthority()
    issued = authority.issue(
        "CN=keys",
        names=[x509.IPAddress(IPv4Address("127.0.0.1"))],
        usage=ExtendedKeyUsageOID.SERVER_AUTH,
    )
    (tmp_path / "authority.pem").write_bytes(authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.write(tmp_path, "server"))
    with ScriptedServer(answer_with(json.dumps(keys).encode()), tls=context) as server:
        yield server
