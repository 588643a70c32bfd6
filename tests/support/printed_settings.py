"""A server whose printed settings for resource servers are used, and an API behind a proxy."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from click.testing import CliRunner

from authz_server.cli.root import main
from authz_server.settings import load_settings
from support.databases import copied_database
from support.dpop import ProofKey
from support.live_server import LiveServer
from support.parties import Demo, Parties, demo_with_keys
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings, write_shared_secrets


@dataclass(frozen=True)
class Scene:
    """A server with its parties, and the folder for what is printed."""

    server: LiveServer
    demo: Demo
    folder: Path

    def snippet(self, kind: str, resource_server: str = "mapper") -> str:
        """Return what the command prints."""
        show = ("resource-server", "show", resource_server, "--snippet", kind)
        result = CliRunner().invoke(main, ["--config", str(self.server.settings_path), *show])
        assert result.exit_code == 0, result.output
        return result.stdout

    def token(self, scope: str) -> str:
        """Return a new token with the scope."""
        return self._fetch_token(scope, {})

    def bound_token(self, scope: str) -> str:
        """Return a new token with the scope that is bound to a DPoP key."""
        url = f"{self.server.base_url}/oauth2/token"
        return self._fetch_token(scope, {"DPoP": ProofKey().prove(time.time(), htu=url)})

    def _fetch_token(self, scope: str, headers: Mapping[str, str]) -> str:
        form = {"grant_type": "client_credentials", "scope": scope} | self.demo.post.form()
        url = f"{self.server.base_url}/oauth2/token"
        answer = httpx.post(url, data=form, headers=headers)
        token: str = answer.json()["access_token"]
        return token

    def revoke(self, token: str) -> None:
        """Revoke a token."""
        form = {"token": token} | self.demo.post.form()
        assert httpx.post(f"{self.server.base_url}/oauth2/revoke", data=form).status_code == 200


class Answered(NamedTuple):
    """An answer: status, challenge, and the client that the API named."""

    status: int
    challenge: str | None
    client: str | None


@pytest.fixture(scope="module")
def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """A live server on SQLite: what others make of its answers does not depend on the database."""
    folder = tmp_path_factory.mktemp("snippets")
    with copied_database(request, "sqlite", folder) as url, served_scene(folder, url) as served:
        yield served


@contextmanager
def served_scene(folder: Path, url: str, **tables: Mapping[str, Any]) -> Iterator[Scene]:
    """Run a server with its parties; `tables` are settings beside those of the tests."""

    def write(server: dict[str, Any]) -> Path:
        issuer = f"http://127.0.0.1:{server['port']}"
        return write_settings(folder, url, {"issuer": issuer, "server": server, **tables})

    write_shared_secrets(folder)
    server = LiveServer(write, folder)
    parties = Parties(load_settings(server.settings_path), SecretsWatch())
    demo = demo_with_keys(parties, url, folder, tables)
    # The client of the tokens that the probe signs.
    parties.make_client("test-client", allowed_scopes=["mapper/link"])
    (folder / "mapper.secret").write_text(demo.mapper.secret + "\n")
    with server:
        yield Scene(server, demo, folder)


class Api(BaseHTTPRequestHandler):
    """An API behind a proxy that answers the client that the proxy names."""

    def do_POST(self) -> None:
        """Answer with the client."""
        body = self.headers.get("X-Client-Id", "").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def api_port() -> Iterator[int]:
    """The port of the API."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()
