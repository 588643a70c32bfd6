"""Fixtures of the tests of authz-verifier."""

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from authz_verifier import Request, Verifier
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
