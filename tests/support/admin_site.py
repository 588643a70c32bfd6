"""The admin API in this process, with callers whose tokens the public application issues."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from werkzeug.test import Client, TestResponse

from authz_server.admin.app import create_admin_app
from authz_server.app import EXTENSION, create_app
from authz_server.assembly import Services
from authz_server.assembly.operator import operator_services
from authz_server.clients.registrations import ADMIN_IDENTIFIER
from authz_server.operations.admin_api import (
    ADMIN_SCOPES,
    register_admin_api,
)
from authz_server.operations.clients import create_client
from authz_server.operations.scopes import import_g2p_connect
from authz_server.settings import Settings, load_settings
from support.clock import clock_ahead
from support.parties import ACTOR, Parties
from support.prepared import take_prepared
from support.secrets_watch import SecretsWatch
from support.settings_file import PATIENT_DATABASE, write_settings

PREFIX = "/admin/v1"
URL = "https://admin.example"
FROM = {"REMOTE_ADDR": "127.0.0.1"}
ALL_SCOPES = tuple(name for name, _, _ in ADMIN_SCOPES)


class AdminSite:
    """The admin API and the public application on one database, and a caller with every scope."""

    def __init__(self, directory: Path, database_url: str, overrides: Mapping[str, Any]) -> None:
        admin = {"enabled": True, "public_url": URL, "requests_per_minute": 1_000_000}
        tables = {"admin": admin, "database": PATIENT_DATABASE, **overrides}
        secrets = take_prepared(database_url, directory, overrides, "admin site", _prepare)
        self.settings = load_settings(write_settings(directory, database_url, tables))
        self.audit_path = directory / "audit.jsonl"
        self.secrets = _make_callers(self.settings) if secrets is None else dict(secrets)
        self.clock = clock_ahead()
        self.public = create_app(self.settings, clock=self.clock)
        self.app = create_admin_app(self.settings, clock=self.clock)
        self.services = self.app.extensions[EXTENSION]
        self._tokens: dict[tuple[str, ...], str] = {}

    def ask_token(
        self,
        *scopes: str,
        client: str = "caller",
        resource: str = ADMIN_IDENTIFIER,
        headers: Mapping[str, str] | None = None,
    ) -> TestResponse:
        """Ask for a token with the scopes, all of them unless some are named."""
        return Client(self.public).post(
            "/oauth2/token",
            data={
                "grant_type": "client_credentials",
                "client_id": client,
                "client_secret": self.secrets[client],
                "scope": " ".join(scopes or ALL_SCOPES),
                "resource": resource,
            },
            headers=dict(headers or {}),
            environ_base=FROM,
        )

    def new_token(self, *scopes: str, **options: Any) -> str:
        """Return a new token; the arguments are those of `ask_token`."""
        answer = self.ask_token(*scopes, **options)
        assert answer.status_code == 200, answer.text
        return answer.json["access_token"]

    def token(self, *scopes: str) -> str:
        """Return a token with the scopes; the same one each time."""
        if scopes not in self._tokens:
            self._tokens[scopes] = self.new_token(*scopes)
        return self._tokens[scopes]

    def forget_tokens(self) -> None:
        """Obtain new tokens from now on."""
        self._tokens.clear()

    def send(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> TestResponse:
        """Send a request to a path below the prefix; without a token, that of the caller.

        An empty token sends none.
        """
        token = self.token() if token is None else token
        sent = {"Authorization": f"Bearer {token}"} if token else {}
        return Client(self.app).open(
            f"{PREFIX}{path}",
            method=method,
            headers={**sent, **(headers or {})},
            environ_base=FROM,
            **options,
        )

    def get(self, path: str, **options: Any) -> TestResponse:
        """Get a resource."""
        return self.send("GET", path, **options)

    def change(
        self, method: str, path: str, body: object = None, *, item: str | None = None
    ) -> TestResponse:
        """Change an item, with its present tag; ``item`` is its path if it is another."""
        tag = self.get(path if item is None else item).headers["ETag"]
        options = {} if body is None else {"json": body}
        return self.send(method, path, headers={"If-Match": tag}, **options)

    def new_client(self, name: str = "A client", **fields: Any) -> dict[str, Any]:
        """Register a client by the API; return the answer."""
        body = {"name": name, "allowed_scopes": ["mapper/link"], **fields}
        answer = self.send("POST", "/clients", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json

    def close(self) -> None:
        """Stop the background work, and close the databases and the audit files."""
        for app in (self.public, self.app):
            services = app.extensions[EXTENSION]
            services.maintenance.stop()
            services.database.close()
            services.sink.close()


def _prepare(url: str, folder: Path) -> dict[str, str]:
    return _make_callers(load_settings(write_settings(folder, url, {})))


def _make_callers(settings: Settings) -> dict[str, str]:
    """Make the usual ring, the scopes and the callers; return the secrets of these."""
    Parties(settings, SecretsWatch()).create_first_keys()
    secrets: dict[str, str] = {}
    with operator_services(settings) as services:
        import_g2p_connect(services, actor=ACTOR)
        register_admin_api(services, actor=ACTOR)
        for name, properties in (
            ("caller", {}),
            ("dpop-caller", {"dpop_bound_access_tokens": True}),
        ):
            secrets[name] = create_caller(services, name, properties=properties)
    return secrets


def create_caller(services: Services, name: str, **fields: Any) -> str:
    """Create a client with every scope of the admin API; return its secret."""
    made = create_client(
        services,
        actor=ACTOR,
        id=name,
        name=name,
        allowed_scopes=ALL_SCOPES,
        authentication_method="client_secret_post",
        **fields,
    )
    assert made.secret is not None
    return made.secret.value


@contextmanager
def running_admin_site(
    directory: Path, database_url: str, overrides: Mapping[str, Any] | Iterable[Any] = ()
) -> Iterator[AdminSite]:
    """Make a site; its databases are closed in the end."""
    site = AdminSite(directory, database_url, dict(overrides))
    try:
        yield site
    finally:
        site.close()


def require_problem(answer: TestResponse, status: int, name: str) -> dict[str, Any]:
    """Check that this is a problem as every route sends it (RFC 9457); return its body."""
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json
    assert body["type"] == f"urn:authz-server:problem:{name}"
    assert body["status"] == status
    assert body["title"]
    assert body["request_id"] == answer.headers["X-Request-Id"]
    return body
