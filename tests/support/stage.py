"""An application in this process that the tests of one file share, with every kind of party.

There is a resource server for each pair of authentication method (`basic`, `post`) and token
format (`jwt`, `reference`), named `METHOD-FORMAT`, which owns the scopes `METHOD-FORMAT/read` and
`METHOD-FORMAT/write`; and the clients `client-basic` and `client-post` may ask for all of them.
"""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from authz_server.app import EXTENSION, Services, create_app
from authz_server.settings import load_settings
from keys.lifecycle.rules import find_active_key
from keys.signing_key import SigningKey
from support.clock import FakeClock
from support.forged_tokens import segment
from support.parties import ACTOR, Credentials, Parties
from support.prepared import take_prepared
from support.secrets_watch import SecretsWatch
from support.serve_twin import ServeTwin
from support.settings_file import ISSUER, write_settings
from support.watching import WatchingClient

METHODS = ("basic", "post")
FORMATS = ("jwt", "reference")
RIGHTS = ("read", "write")
ENDPOINTS = {
    "token": "/oauth2/token",
    "g2p": "/oauth2/client/token",
    "introspect": "/oauth2/introspect",
    "revoke": "/oauth2/revoke",
}
INACTIVE = {"active": False}


class ApplicationFixture:
    """The application with its parties, and what tests do with both."""

    def __init__(
        self,
        directory: Path,
        database_url: str,
        *,
        clock: FakeClock | None = None,
        is_prepared: bool = True,
        **overrides: Any,
    ) -> None:
        self.directory, self.watch = directory, SecretsWatch()
        self.callers: dict[str, Credentials] = {}
        if is_prepared:
            made = take_prepared(database_url, directory, overrides, "stage", _prepare)
            self.callers.update(made or {})
        self.settings = load_settings(write_settings(directory, database_url, overrides))
        self.audit_path = directory / "audit.jsonl"
        self.clock = clock or FakeClock()
        self.clock.now = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=10)
        if not self.callers:
            Parties(self.settings, self.watch).create_first_keys()
        self._numbers = itertools.count(1)
        self.app = create_app(self.settings, clock=self.clock)
        self.services: Services = self.app.extensions[EXTENSION]
        self.client = WatchingClient(self.app)
        self.client.watch = self.watch
        if not self.callers:
            self._make_parties()
        self.services.feed.poll()
        for each in self.callers.values():
            self.watch.note_basic(each.id, each.secret)

    def close(self) -> None:
        """End what runs in the background; search what was written for secrets."""
        self.services.maintenance.stop()
        self.services.database.close()
        self.services.sink.close()
        self.watch.watch_file(self.audit_path)
        self.watch.verify_absent(self.watch.outputs())

    def post(
        self,
        endpoint: str,
        form: dict[str, Any],
        caller: Credentials | None = None,
        headers: dict[str, str] | None = None,
    ) -> TestResponse:
        """Send a form to `endpoint`, one of `ENDPOINTS`, authenticated as `caller`."""
        sent = {"Content-Type": "application/x-www-form-urlencoded"} | dict(headers or {})
        if endpoint == "g2p":
            sent["timestamp"] = format_datetime(self.clock(), usegmt=True)
        if caller is not None:
            sent = caller.headers() | sent
            form = caller.form() | form
        return self.client.post(ENDPOINTS[endpoint], data=form, headers=sent)

    def token(self, scope: str = "basic-jwt/read", caller: Credentials | None = None) -> str:
        """Return a new token of `caller`, who is `client-basic` unless told otherwise."""
        form = {"grant_type": "client_credentials", "scope": scope}
        answer = self.post("token", form, caller or self.callers["client-basic"])
        assert answer.status_code == 200, answer.text
        return answer.get_json()["access_token"]

    def introspect(self, token: str, caller: Credentials | str = "basic-jwt") -> dict[str, Any]:
        """Return the answer about `token` that `caller`, or the party of that id, gets."""
        asking = self.callers[caller] if isinstance(caller, str) else caller
        answer = self.post("introspect", {"token": token}, asking)
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    def revoke(self, token: str, caller: Credentials | str = "client-basic") -> None:
        """Revoke `token`, which must be answered with 200."""
        asking = self.callers[caller] if isinstance(caller, str) else caller
        answer = self.post("revoke", {"token": token}, asking)
        assert (answer.status_code, answer.data) == (200, b"{}"), answer.text

    def new_client(self, method: str = "basic", **values: Any) -> Credentials:
        """Make a client of its own, who may ask for every scope unless told otherwise."""
        with self.change() as (_, session):
            return self._new_client(session, f"client-{next(self._numbers)}", method, **values)

    @contextmanager
    def change(self) -> Iterator[tuple[Services, Session]]:
        """Yield the application's services and a transaction; then have it read the change."""
        with self.services.database.transaction() as session:
            yield self.services, session
        self.services.feed.poll()

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return sound claims of a token of `client-basic`; a change to None takes one away."""
        now = int(self.clock().timestamp())
        claims = {
            "iss": ISSUER,
            "sub": "client-basic",
            "client_id": "client-basic",
            "aud": "https://basic-jwt.example",
            "iat": now,
            "exp": now + 900,
            "jti": f"made-by-hand-{next(self._numbers)}",
            "scope": "basic-jwt/read",
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def sign(self, claims: object, header: object = None, *, typ: str = "at+jwt") -> str:
        """Return `claims` (bytes as they are) signed with the server's own key.

        `header` replaces the usual one; a mapping is laid over it.
        """
        if not isinstance(header, bytes):
            header = {"alg": "ES256", "kid": self.kid, "typ": typ} | dict(header or {})
        signing_input = f"{segment(header)}.{segment(claims)}"
        key = self._active_key()
        backend = self.services.key_backends["sql://"]
        (signature,) = backend.sign(key.ring, str(key.version), "ES256", (signing_input.encode(),))
        token = f"{signing_input}.{segment(signature)}"
        self.watch.note(token, "token")
        return token

    @property
    def kid(self) -> str:
        """The id of the key that signs now."""
        return self._active_key().kid

    def records(self) -> list[dict[str, Any]]:
        """Return every record of the audit trail so far."""
        return [json.loads(line) for line in self.audit_path.read_text().splitlines()]

    def _active_key(self) -> SigningKey:
        (ring,) = self.services.key_rings.snapshots()
        key = find_active_key(ring.keys, self.clock())
        assert key is not None
        return key

    def _make_parties(self) -> None:
        with self.change() as (_, session):
            for method, form in itertools.product(METHODS, FORMATS):
                name = f"{method}-{form}"
                self.callers[name] = self._new_resource_server(session, name, method, form)
            for method in METHODS:
                name = f"client-{method}"
                self.callers[name] = self._new_client(session, name, method)

    def _new_resource_server(
        self, session: Session, name: str, method: str, form: str
    ) -> Credentials:
        self.services.clients.create_resource_server(
            session,
            actor=ACTOR,
            id=name,
            name=name,
            identifier=f"https://{name}.example",
            authentication_method=f"client_secret_{method}",
            token_format=form,
        )
        for right in RIGHTS:
            self.services.scopes.add_scope(
                session, actor=ACTOR, name=f"{name}/{right}", resource_server_id=name
            )
        return self.add_secret(session, name, method)

    def _new_client(self, session: Session, name: str, method: str, **values: Any) -> Credentials:
        pairs = itertools.product(METHODS, FORMATS, RIGHTS)
        usual = {
            "name": name,
            "authentication_method": f"client_secret_{method}",
            "allowed_scopes": [f"{each}-{form}/{right}" for each, form, right in pairs],
            "default_scopes": ["basic-jwt/read"],
        }
        self.services.clients.create_client(session, actor=ACTOR, id=name, **usual | values)
        return self.add_secret(session, name, method)

    def add_secret(self, session: Session, name: str, method: str = "basic") -> Credentials:
        """Give a party one more secret; return the credentials with it."""
        _, secret = self.services.clients.add_secret(session, name, actor=ACTOR)
        self.watch.note_basic(name, secret)
        return Credentials(name, secret, f"client_secret_{method}")


def _prepare(url: str, folder: Path) -> dict[str, Credentials]:
    stage = ApplicationFixture(folder, url, is_prepared=False)
    stage.close()
    return stage.callers


@pytest.fixture(scope="module")
def stage(module_database_url: str, tmp_path_factory) -> Iterator[ApplicationFixture]:
    """The application and its parties, shared by the tests of one file."""
    stage = ApplicationFixture(tmp_path_factory.mktemp("stage"), module_database_url)
    with ServeTwin(stage.settings, stage.clock, stage.directory) as stage.client.twin:
        yield stage
    stage.close()
