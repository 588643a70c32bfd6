"""A running server at which tests throw what no proper client sends, one for each test file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from ssl import SSLContext
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from authz_server.settings import load_settings
from support.live_server import LiveServer
from support.parties import Demo, Parties, demo_with_keys
from support.raw_http import RawConnection
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings, write_shared_secrets

ENDPOINTS = {
    "token": "/oauth2/token",
    "introspect": "/oauth2/introspect",
    "revoke": "/oauth2/revoke",
}
_FORM = "application/x-www-form-urlencoded"


class ServerFixture:
    """A live server with the usual parties, and one live token by which effects are noticed."""

    def __init__(
        self, server: LiveServer, demo: Demo, directory: Path, trust: SSLContext | None = None
    ) -> None:
        self.server = server
        self.demo = demo
        self.port = server.port
        self._audit_path = directory / "audit.jsonl"
        # One client reads the certificates of the machine once; each request has a new connection.
        verify = True if trust is None else trust
        one_each = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.Client(limits=one_each, verify=verify)
        self.token = self.new_token()

    def connect(self, deadline_seconds: float = 5.0) -> RawConnection:
        """Open a connection to the public listener."""
        return RawConnection(self.port, deadline_seconds)

    def form(self, endpoint: str, *, harmless: bool = False) -> dict[str, str]:
        """Return a form that succeeds; a harmless one changes nothing when it does."""
        if endpoint == "token":
            scope = {"grant_type": "client_credentials", "scope": "mapper/link"}
            return scope | self.demo.post.form()
        if endpoint == "revoke" and harmless:
            return {"token": "invented"}
        if endpoint == "revoke":
            self.token = self.new_token()
        return {"token": self.token}

    def headers(self, endpoint: str) -> dict[str, str]:
        """Return the headers that go with the form."""
        callers = {"introspect": self.demo.mapper, "revoke": self.demo.basic}
        headers = {"Content-Type": _FORM}
        return headers | (callers[endpoint].headers() if endpoint in callers else {})

    def request(self, endpoint: str, *, harmless: bool = False) -> tuple[bytes, bytes]:
        """Return request line and headers, without those that frame the body, and the body."""
        lines = [f"POST {ENDPOINTS[endpoint]} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in self.headers(endpoint).items()]
        head = "".join(f"{line}\r\n" for line in lines)
        return head.encode(), urlencode(self.form(endpoint, harmless=harmless)).encode()

    def post(self, endpoint: str, form: dict[str, Any], **options: Any) -> httpx.Response:
        """Send a form as a proper client does."""
        url = self.server.base_url + ENDPOINTS[endpoint]
        body = urlencode(form).encode()
        return self._client.post(url, content=body, headers=self.headers(endpoint), **options)

    def new_token(self) -> str:
        """Return a token of the Basic client, for `mapper/link`."""
        form = {"grant_type": "client_credentials", "scope": "mapper/link"}
        url = self.server.base_url + ENDPOINTS["token"]
        answer = self._client.post(url, data=form, headers=self.demo.basic.headers())
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    def token_is_active(self) -> bool:
        """Ask whether the token still counts: nothing has revoked it."""
        return self.post("introspect", {"token": self.token}).json()["active"]

    def audit_trail(self) -> str:
        """Return every audit record so far but the checkpoints, which come by the clock."""
        lines = self._audit_path.read_text().splitlines(keepends=True)
        return "".join(line for line in lines if '"event":"audit.checkpoint"' not in line)

    def cpu_seconds(self) -> float:
        """Return the processor time that all worker processes have used so far."""
        processes = self.server.worker_process_ids()
        times = [Path(f"/proc/{each}/stat").read_text().rpartition(") ")[2] for each in processes]
        ticks = sum(int(field) for each in times for field in each.split()[11:13])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """Return the resident memory of all worker processes."""
        processes = self.server.worker_process_ids()
        pages = [int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in processes]
        return sum(pages) * 4096


@pytest.fixture(scope="module")
def edge(module_database_url: str, tmp_path_factory) -> Iterator[ServerFixture]:
    """A running server that the tests of one file share."""
    with running_edge(tmp_path_factory.mktemp("server"), module_database_url) as edge:
        yield edge


@contextmanager
def running_edge(
    directory: Path, database_url: str, *, trust: SSLContext | None = None, **overrides: Any
) -> Iterator[ServerFixture]:
    """Run a server on a migrated database; in the end search what it wrote for secrets.

    `trust` is what its certificate is checked by, where it has one.
    """
    watch = SecretsWatch()
    write = partial(_write, directory, database_url)
    write_shared_secrets(directory)
    parties = Parties(load_settings(write()), watch)
    demo = demo_with_keys(parties, database_url, directory, overrides)
    with LiveServer(write, directory, **overrides) as server:
        edge = ServerFixture(server, demo, directory, trust)
        watch.note(edge.token, "access token")
        yield edge
        log = server.log()
    watch.verify_absent([("server log", log), ("audit trail", edge.audit_trail())])


def _write(directory: Path, database_url: str, **overrides: Any) -> Path:
    return write_settings(directory, database_url, overrides)
