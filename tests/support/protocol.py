"""The application in this process as protocol tests talk to it, one for the tests of a file."""

import base64
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from email.utils import format_datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

import msgspec
import pytest
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from authz_server.app import EXTENSION, Services, create_app
from authz_server.settings import load_settings
from support.clock import FakeClock, clock_ahead
from support.parties import Credentials, Demo, Parties, make_demo, take_demo
from support.secrets_watch import SecretsWatch
from support.serve_twin import ServeTwin
from support.settings_file import PATIENT_DATABASE, write_settings
from support.watching import EverythingLogged, WatchingClient

ENDPOINTS = {
    "token": "/oauth2/token",
    "g2p": "/oauth2/client/token",
    "introspect": "/oauth2/introspect",
    "revoke": "/oauth2/revoke",
}
TOKEN_ENDPOINTS = ("token", "g2p")
METHODS = ("client_secret_basic", "client_secret_post")
#: The registered methods, and HTTP Basic as clients send it that do not encode id and secret.
PRESENTATIONS = ("client_secret_basic", "client_secret_basic-raw", "client_secret_post")
FORM_TYPE = "application/x-www-form-urlencoded"

_DISTINCT_HEADERS = {"Date", "X-Request-Id", "Content-Length"}


def present(
    presentation: str, client_id: str, secret: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Return form fields and headers that offer a secret in one of the PRESENTATIONS."""
    if presentation == "client_secret_post":
        return {"client_id": client_id, "client_secret": secret}, {}
    encode = str if presentation.endswith("raw") else quote_plus
    return {}, {"Authorization": basic(f"{encode(client_id)}:{encode(secret)}")}


def basic(pair: str | bytes) -> str:
    """Return an `Authorization` header of exactly this pair."""
    data = pair.encode() if isinstance(pair, str) else pair
    return f"Basic {base64.b64encode(data).decode()}"


def method_of(presentation: str) -> str:
    """Return the registered method of a presentation."""
    return presentation.removesuffix("-raw")


class NearParties(Parties):
    """Makes parties by the application's own services: much faster, and by its clock."""

    services: Services | None = None

    def together(self) -> AbstractContextManager[None]:
        """Use the same services as always."""
        return nullcontext()

    @contextmanager
    def change(self) -> Iterator[tuple[Services, Session]]:
        """Yield the services and a transaction; when it is committed, the application reads it."""
        if self.services is None:
            raise RuntimeError("there is no application yet")
        with self.services.database.transaction() as session:
            yield self.services, session
        self.services.feed.poll()

    def import_scopes(self) -> None:
        """Import the G2P Connect catalogue once."""
        if not self.services.catalogue.entries():
            super().import_scopes()


class Protocol:
    """The application, its time, the usual parties, and requests that would succeed."""

    def __init__(
        self, app: Any, clock: FakeClock, parties: Parties, audit_path: Path, demo: Demo | None
    ) -> None:
        self.app = app
        self.clock = clock
        self.parties = parties
        self.services: Services = app.extensions[EXTENSION]
        self.demo: Demo = demo or make_demo(parties)
        self._audit_path = audit_path
        self.client = app.test_client()
        self.client.watch = parties.watch
        self._numbers = count(1)

    def send(self, method: str, path: str, **options: Any) -> TestResponse:
        """Send any request as it is."""
        return self.client.open(path, method=method, **options)

    def get(self, path: str, **headers: str) -> TestResponse:
        """Get a public document; header names with `_` for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send("GET", path, headers=sent)

    def post(
        self,
        endpoint: str,
        form: Mapping[str, Any] | str | bytes,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> TestResponse:
        """Post a form, given as fields or as it is, to one of ENDPOINTS."""
        if isinstance(form, Mapping):
            self.parties.watch.note_form(form)
            form = urlencode(form, doseq=True)
        sent = {"Content-Type": FORM_TYPE, **self.profile_headers(endpoint), **(headers or {})}
        return self.send("POST", ENDPOINTS[endpoint], data=form, headers=sent, **options)

    def profile_headers(self, endpoint: str) -> dict[str, str]:
        """Return the headers that the endpoint requires beside those of every form."""
        if endpoint != "g2p":
            return {}
        return {"timestamp": format_datetime(self.clock(), usegmt=True)}

    def form(self, endpoint: str, token: str = "invented") -> dict[str, str]:
        """Return a form that succeeds once credentials are added."""
        if endpoint in TOKEN_ENDPOINTS:
            return {"grant_type": "client_credentials", "scope": "mapper/link"}
        return {"token": token}

    def ask(
        self, endpoint: str, caller: Credentials, *, without: str = "", **fields: Any
    ) -> TestResponse:
        """Send a form that succeeds, with `fields` laid over it and the field `without` gone."""
        form = self.form(endpoint) | caller.form() | fields
        form.pop(without, None)
        return self.post(endpoint, form, caller.headers())

    def offer(self, endpoint: str, presentation: str, client_id: str, secret: str) -> TestResponse:
        """Send a form that succeeds if the credentials do."""
        fields, headers = present(presentation, client_id, secret)
        return self.post(endpoint, self.form(endpoint) | fields, headers)

    def new_token(self, caller: Credentials | None = None, **fields: Any) -> str:
        """Return a token, of the Basic client unless told otherwise."""
        answer = self.ask("token", caller or self.demo.basic, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json["access_token"]

    def new_client(self, method: str = "client_secret_post", **values: Any) -> Credentials:
        """Make a client of a new id, for `mapper/link` unless told otherwise."""
        return self.parties.make_client(f"client-{next(self._numbers)}", method, **values)

    def is_active(self, token: str) -> bool:
        """Ask as the mapper whether a token is in force."""
        return self.ask("introspect", self.demo.mapper, token=token).json["active"]

    def record_refusals_alone(self) -> None:
        """Begin a new minute of refusals: the next one of each kind is recorded one by one."""
        self.services.refusals.flush(at_once=True)

    def audit_trail(self) -> str:
        """Return every audit record so far but the checkpoints, which come by the clock."""
        lines = self._audit_path.read_text().splitlines(keepends=True)
        return "".join(line for line in lines if '"event":"audit.checkpoint"' not in line)


def facts(answer: TestResponse) -> tuple[int, dict[str, str], bytes]:
    """Return what may tell one answer from another: all but date and request id."""
    headers = {name: value for name, value in answer.headers if name not in _DISTINCT_HEADERS}
    return answer.status_code, headers, answer.data


def require_refusal(answer: TestResponse, status: int, error: str, endpoint: str = "") -> None:
    """Check that this is an OAuth error as every endpoint sends it (RFC 6749, 5.2)."""
    assert (answer.status_code, answer.json.get("error")) == (status, error), answer.text
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Pragma"] == "no-cache"
    assert len(answer.headers["X-Request-Id"]) == 16
    allowed = {"error", "error_description"} | ({"errors"} if endpoint == "g2p" else set())
    assert answer.json.keys() == allowed
    description = answer.json["error_description"]
    # RFC 6749, 5.2
    assert all(0x20 <= ord(each) <= 0x7E and each not in '"\\' for each in description)


@contextmanager
def running_protocol(
    directory: Path,
    database_url: str,
    *,
    has_twin: bool = False,
    profiles: Sequence[str] = (),
    **overrides: Any,
) -> Iterator[Protocol]:
    """Make an application with the usual parties; in the end search what it wrote for secrets.

    Failures are not throttled unless the overrides say so. With a twin, every request is answered
    by `serve` too, and has to be answered alike. The profiles are those of the application; the
    parties are made without them.
    """
    unthrottled = {"failures_per_window": 1_000_000, **overrides.pop("clients", {})}
    tables = {"database": PATIENT_DATABASE, **overrides, "clients": unthrottled}
    watch, logged = SecretsWatch(), EverythingLogged()
    demo = take_demo(database_url, directory, watch, tables)
    settings = load_settings(write_settings(directory, database_url, tables))
    parties = (Parties if profiles else NearParties)(settings, watch)
    if demo is None:
        Parties(settings, watch).create_first_keys()
    clock = clock_ahead()
    if profiles:
        settings = msgspec.structs.replace(settings, profiles=tuple(profiles))
    app = create_app(settings, clock=clock)
    app.test_client_class = WatchingClient
    services = app.extensions[EXTENSION]
    if isinstance(parties, NearParties):
        parties.services = services
    else:
        parties.tell.append(services.feed.poll)
    services.feed.poll()
    root = logging.getLogger()
    level = root.level
    root.addHandler(logged)
    root.setLevel(logging.DEBUG)
    protocol = Protocol(app, clock, parties, directory / "audit.jsonl", demo)
    try:
        with ServeTwin(settings, clock, directory) if has_twin else nullcontext() as twin:
            protocol.client.twin = twin
            yield protocol
    finally:
        root.removeHandler(logged)
        root.setLevel(level)
        services.maintenance.stop()
        services.database.close()
        services.sink.close()
    audit_trail = (directory / "audit.jsonl").read_text()
    watch.verify_absent([("log", "\n".join(logged.lines)), ("audit trail", audit_trail)])


@pytest.fixture(scope="module")
def protocol(module_database_url: str, tmp_path_factory) -> Iterator[Protocol]:
    """An application that the tests of one file share, once for each dialect."""
    directory = tmp_path_factory.mktemp("protocol")
    with running_protocol(directory, module_database_url, has_twin=True) as protocol:
        yield protocol


@pytest.fixture
def start_protocol(sqlite_url: str, tmp_path: Path):
    """A function of overrides: an application of this test alone, where no database matters."""
    with ExitStack() as running:

        def start(**overrides: Any) -> Protocol:
            return running.enter_context(running_protocol(tmp_path, sqlite_url, **overrides))

        yield start
