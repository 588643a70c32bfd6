"""Fixtures of the tests of authz-verifier."""

import datetime as dt
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authz_verifier import Refusal, Request, Verifier
from authz_verifier.pytest_plugin import authz_proof_key
from authz_verifier.testing import DEFAULT_AUDIENCE, LocalIssuer

__all__ = ["authz_proof_key"]

URL = f"{DEFAULT_AUDIENCE}/mapper/link"


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with LocalIssuer() as local:
        yield local


@pytest.fixture
def verifier(issuer) -> Iterator[Verifier]:
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as made:
        yield made


@pytest.fixture
def present():
    """A function of a token (and proofs): the request to the API."""

    def make(token: str, scheme: str = "Bearer", **parts) -> Request:
        return Request("POST", URL, (f"{scheme} {token}",), **parts)

    return make


class Tls(NamedTuple):
    """Contexts of a server on loopback, and of a client that trusts its certificate."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture
def tls(tmp_path) -> Tls:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(
        name,
        name,
        key.public_key(),
        1,
        now,
        now + dt.timedelta(days=1),
        [x509.Extension(address.oid, critical=False, value=address)],
    )
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    path = tmp_path / "server.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return Tls(context, ssl.create_default_context(cadata=certificate.decode()))


class Hostile(BaseHTTPRequestHandler):
    """A server that redirects, answers 10 MB, takes its time, or lies."""

    def do_GET(self):
        try:
            getattr(self, self.server.behaviour)()
        except OSError:
            self.close_connection = True

    def do_POST(self):
        self.do_GET()

    def redirects(self):
        self.send_response(302)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()

    def floods(self):
        self.send_response(200)
        self.end_headers()
        for _ in range(160):
            self.wfile.write(b" " * 65_536)

    def drips(self):
        self.send_response(200)
        self.end_headers()
        self.drip()

    def drips_headers(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nServer: ")
        self.drip()

    def drip(self):
        for _ in range(400):
            self.wfile.write(b" ")
            time.sleep(0.05)

    def lies(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"issuer": "https://other.example", "issuer": 7')

    def log_message(self, *_):
        pass


@pytest.fixture
def hostile() -> Iterator[Callable[[str], str]]:
    """A function of a behaviour: the address of a server that has it."""
    server = HTTPServer(("127.0.0.1", 0), Hostile)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))

    def start(behaviour: str) -> str:
        server.behaviour = behaviour
        thread.start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def is_accepted() -> Callable[[Verifier, Request], bool]:
    """A function that returns whether a verifier accepts a request."""

    def accepts(verifier: Verifier, request: Request) -> bool:
        try:
            verifier.authenticate(request, "mapper/link")
        except Refusal:
            return False
        return True

    return accepts


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object]], None]:
    """A function that returns once a condition is true."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    return wait
