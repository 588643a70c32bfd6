"""A whole installation whose keys are in a real OpenBao: servers, command line, callers, faults.

A `VaultFixture` has a ring `remote` in transit, which signs for whoever names no ring, and a ring
`local` in the database, which signs for the resource server `beside`. Its server logs in by AppRole
with the least that it needs; the rotator has a login of its own.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import jwt

from authz_server.assembly.operator import operator_services
from authz_server.settings import load_settings
from keys.lifecycle.rules import find_active_key
from keys.signing_key import RingSnapshot
from support.claims import header_of
from support.live_server import LiveServer, call_cli, call_cli_json
from support.openbao import OpenBaoAdmin, OpenBaoServer
from support.parties import ACTOR, Credentials, Parties
from support.protocol import ENDPOINTS
from support.secrets_watch import SecretsWatch
from support.settings_file import ISSUER, write_settings
from support.tcp_proxy import TcpProxy
from support.vault_side import VaultEngines

JWKS = "/.well-known/jwks.json"


@dataclass(frozen=True)
class Answer:
    """One answer of a server, with how long it took."""

    status: int
    headers: Mapping[str, str]
    body: Any
    seconds: float

    @property
    def token(self) -> str:
        """The access token, which must be there."""
        assert self.status == 200, self.body
        return self.body["access_token"]


class VaultFixture:
    """An installation over a database and an OpenBao, reached through `proxy`. A context manager.

    Args:
        directory: its settings, secrets and logs.
        database_url: migrated, empty.
        vault: running and unsealed; it gets an engine and roles of this site's own.
        rings: tables over the usual rings, by name; `{mount}` in a backend stands for the engine's
            path, `{mount}-kv` for that of the KV engine.
        resource_servers: the ring that signs, by a resource server's id; besides `mapper`'s.
        nodes: how many servers there are.
        unforked: start them as an operator starts them.
        overrides: of the settings, as tables.
    """

    def __init__(  # noqa: PLR0913 - the parts of an installation
        self,
        directory: Path,
        database_url: str,
        vault: OpenBaoServer,
        *,
        rings: Mapping[str, Any] | None = None,
        resource_servers: Mapping[str, str] | None = None,
        nodes: int = 1,
        unforked: bool = False,
        **overrides: Any,
    ) -> None:
        self.directory, self.database_url, self.vault = directory, database_url, vault
        self.watch = SecretsWatch()
        self.proxy = TcpProxy(urlsplit(vault.address).port or 0)
        self._rings = {"es256": None} | dict(rings or {})
        tables = [table for table in self._rings.values() if table is not None]
        drives_itself = any(table.get("drive") == "self" for table in tables)
        self.side = VaultEngines(vault, directory, self.watch, drives_itself=drives_itself)
        self.mount = self.side.mount
        self._resource_servers = {"beside": "local"} | dict(resource_servers or {})
        self._nodes, self._unforked = nodes, unforked
        self._overrides = overrides
        self._running = ExitStack()
        self.servers: list[LiveServer] = []
        self.callers: dict[str, Credentials] = {}
        self.vaults: dict[str, Any] = {}
        self.before_first_keys: Callable[[], None] = lambda: None

    # ---------------------------------------------------------------------------- beginning

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.proxy)
            self.side.prepare()
            self.settings_path = self.write_settings()
            self.settings = load_settings(self.settings_path)
            self.make_first_keys()
            self.make_parties()
            for _ in range(self._nodes):
                # Each starts before the settings file is written again with the next one's ports.
                server = LiveServer(self.write_settings, self.directory, unforked=self._unforked)
                self.servers.append(stack.enter_context(server))
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()
        outputs = [(path.name, path.read_text(errors="replace")) for path in self.output_paths()]
        self.watch.verify_absent(outputs)

    def output_paths(self) -> list[Path]:
        """Return what was written for people to read: logs and audit trail."""
        return [server.log_path for server in self.servers] + [self.directory / "audit.jsonl"]

    @property
    def admin(self) -> OpenBaoAdmin:
        """Root at the Vault."""
        return self.vault.admin()

    def vault_settings(self) -> dict[str, Any]:
        """Return the table of this site's Vault."""
        return {
            "addresses": [f"{urlsplit(self.vault.address).scheme}://127.0.0.1:{self.proxy.port}"],
            "ca_file": self.vault.ca_file,
            "login": self.side.login("server"),
            "rotator_login": self.side.login("rotator"),
        }

    def write_settings(self, **overrides: Any) -> Path:
        """Write the settings file with these tables over this site's; return its path."""
        remote = {"backend": f"transit://{self.mount}/remote", "drive": "rotator"}
        rings: dict[str, Any] = {"remote": remote, "local": {"backend": "sql://"}}
        for name, table in self._rings.items():
            rings[name] = None if table is None else rings.get(name, {}) | table
        for table in rings.values():
            if table is not None:
                table["backend"] = table["backend"].format(mount=self.mount)
        keys = {
            "default_ring": "remote",
            "refresh_interval_seconds": 1,
            "clock_tolerance_seconds": 1,
            "vaults": {"main": self.vault_settings()} | self.vaults,
        }
        keys |= self._overrides.get("keys", {})
        rest = {name: table for name, table in self._overrides.items() if name != "keys"}
        tables = rest | {"keys": keys | {"rings": rings}} | overrides
        return write_settings(self.directory, self.database_url, tables)

    def make_first_keys(self) -> None:
        """Run `keys init`, as the rotator; a test may make keys in the Vault first."""
        self.before_first_keys()
        made = self.command("keys", "init")
        assert made.returncode == 0, made.stderr

    def make_parties(self) -> None:
        """Make the resource servers and the client."""
        parties = Parties(self.settings, self.watch)
        self.callers["mapper"] = parties.make_resource_server()
        scopes = ["mapper/link"]
        for name, ring in self._resource_servers.items():
            if ring in self.settings.keys.rings:
                self._make_resource_server(parties, name, ring)
                scopes.append(f"{name}/read")
        self.callers["ministry"] = parties.make_client(allowed_scopes=scopes)

    def _make_resource_server(self, parties: Parties, name: str, ring: str) -> None:
        with parties.change() as (services, session):
            services.clients.create_resource_server(
                session,
                actor=ACTOR,
                id=name,
                name=name,
                identifier=f"https://{name}.example",
                authentication_method="client_secret_basic",
                signing_ring=ring,
            )
            services.scopes.add_scope(
                session, actor=ACTOR, name=f"{name}/read", resource_server_id=name
            )
        self.callers[name] = parties.add_secret(name, "client_secret_basic")

    # --------------------------------------------------------------------------------- using

    def add_ring(self, name: str, table: Mapping[str, Any]) -> None:
        """Add a ring as an operator does: settings, `keys init`, and a restart of the server."""
        self._rings[name] = table
        ports = {"port": self.server.port, "health_port": self.server.health_port, "workers": 1}
        self.settings_path = self.write_settings(server=ports)
        self.settings = load_settings(self.settings_path)
        made = self.command("keys", "init", name)
        assert made.returncode == 0, made.stderr
        self.server.stop()
        self.server.start()

    @property
    def server(self) -> LiveServer:
        """The first server."""
        return self.servers[0]

    def command(self, *arguments: str):
        """Run a command with this site's settings; return its exit status and what it printed."""
        return call_cli(*arguments, config=self.settings_path)

    def command_json(self, *arguments: str) -> Any:
        """Run a command with `--json`, which must succeed; return what it printed."""
        return call_cli_json(*arguments, config=self.settings_path)

    def ring(self, name: str) -> RingSnapshot:
        """Return a ring as the database has it."""
        with operator_services(self.settings) as services:
            rings = services.key_store.load_rings(services.clock())
        return next(ring for ring in rings if ring.name == name)

    def signing_version(self, ring: str) -> int | None:
        """Return the version that signs now, by the clock."""
        found = self.ring(ring)
        active = find_active_key(found.keys, found.loaded_at)
        return active.version if active else None

    def latest_version(self, key: str) -> int:
        """Return the number of the latest version that the Vault holds."""
        return self.admin.read_key(key, mount=self.mount)["latest_version"]

    @property
    def backend(self) -> str:
        """The URI of the ring `remote`."""
        return f"transit://{self.mount}/remote"

    def ask(self, scope: str = "mapper/link", node: int = 0, **headers: str) -> Answer:
        """Ask for a token."""
        client = self.callers["ministry"]
        form = {"grant_type": "client_credentials", "scope": scope} | client.form()
        return self._post(node, "token", form, client, headers)

    def introspect(
        self, token: str, caller: str = "mapper", node: int = 0, **headers: str
    ) -> Answer:
        """Ask about a token."""
        return self._post(node, "introspect", {"token": token}, self.callers[caller], headers)

    def revoke(self, token: str, node: int = 0) -> Answer:
        """Revoke a token as the client."""
        client = self.callers["ministry"]
        return self._post(node, "revoke", {"token": token} | client.form(), client, {})

    def fetch_jwks(self, node: int = 0) -> Answer:
        """Fetch the JWKS, under the name by which caches may keep it."""
        host = {"Host": ISSUER.removeprefix("https://")}
        began = time.monotonic()
        answer = httpx.get(self.servers[node].base_url + JWKS, headers=host, timeout=20)
        taken = time.monotonic() - began
        return Answer(answer.status_code, answer.headers, answer.json(), taken)

    def published_kids(self, node: int = 0) -> list[str]:
        """Return the ids in the JWKS."""
        return [key["kid"] for key in self.fetch_jwks(node).body["keys"]]

    def readiness(self) -> dict[str, Any]:
        """Return what the health listener says."""
        return httpx.get(f"{self.server.health_url}/health/ready", timeout=20).json()

    def metrics(self) -> dict[str, float]:
        """Return every sample of the metrics page by its name and labels."""
        page = httpx.get(f"{self.server.health_url}/metrics", timeout=20).text
        pairs = (line.rsplit(" ", 1) for line in page.splitlines() if line and line[0] != "#")
        return {name: float(value) for name, value in pairs}

    def sample(self, name: str, backend: str) -> str:
        """Return how the metrics page names a sample about a backend."""
        return f'{name}{{backend="{backend}"}}'

    def records(self) -> list[dict[str, Any]]:
        """Return every audit record so far."""
        path = self.directory / "audit.jsonl"
        return [json.loads(line) for line in path.read_bytes().splitlines() if line]

    @contextmanager
    def new_records(self) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """Yield a function that returns the audit records made since the block began."""
        before = len(self.records())
        yield lambda: self.records()[before:]

    def _post(self, node, endpoint, form, caller: Credentials, headers) -> Answer:
        began = time.monotonic()
        answer = httpx.post(
            self.servers[node].base_url + ENDPOINTS[endpoint],
            data=form,
            headers=caller.headers() | headers,
            timeout=20,
        )
        taken = time.monotonic() - began
        is_json = answer.headers.get("Content-Type") == "application/json"
        body = answer.json() if is_json else answer.text
        self.watch.note_answer(body)
        return Answer(answer.status_code, answer.headers, body, taken)


def verifies(token: str, jwks: Mapping[str, Any], audience: str) -> bool:
    """Tell whether PyJWT accepts a token with exactly these keys."""
    keys = {key["kid"]: jwt.PyJWK(key) for key in jwks["keys"]}
    header = header_of(token)
    if header["kid"] not in keys:
        return False
    jwt.decode(token, keys[header["kid"]], algorithms=[header["alg"]], audience=audience)
    return True
