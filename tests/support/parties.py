"""Clients and resource servers made for a test, with the credentials to be one of them."""

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote_plus

from sqlalchemy.orm import Session

from authz_server.app import Services
from authz_server.assembly.operator import operator_services
from authz_server.operations.keys.first_keys import create_missing_keys
from authz_server.scopes.g2p_connect import CATALOGUE
from authz_server.settings import Settings, load_settings
from support.orders import rotator_of
from support.prepared import take_prepared
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings

ACTOR = "operator:tester"
RESOURCE_SERVERS = {"mapper": "https://mapper.example", "disburse": "https://disburse.example"}


@dataclass(frozen=True)
class Credentials:
    """How one party authenticates: its id, a secret, and its registered method."""

    id: str
    secret: str
    method: str

    def form(self) -> dict[str, str]:
        """Return the form fields that authenticate it; none for another method than the form."""
        if self.method != "client_secret_post":
            return {}
        return {"client_id": self.id, "client_secret": self.secret}

    def headers(self) -> dict[str, str]:
        """Return the headers that authenticate it; none for another method than Basic."""
        if self.method != "client_secret_basic":
            return {}
        pair = f"{quote_plus(self.id)}:{quote_plus(self.secret)}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


class Parties:
    """Makes parties in the database of `settings`, as the command line does beside a server.

    `tell` holds what is called after each change: an application in this process reads it at once.
    """

    def __init__(self, settings: Settings, watch: SecretsWatch) -> None:
        self._settings = settings
        self.watch = watch
        self.tell: list[Callable[[], None]] = []
        self._held: Services | None = None
        self._has_scopes = False

    @property
    def settings(self) -> Settings:
        """The settings of whose database this is."""
        return self._settings

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make the changes of the block with one set of services: opening it is half their cost."""
        if self._held is not None:
            yield
            return
        with operator_services(self._settings) as services:
            self._held = services
            try:
                yield
            finally:
                self._held, self._has_scopes = None, False

    @contextmanager
    def _services(self) -> Iterator[Services]:
        if self._held is not None:
            yield self._held
            return
        with operator_services(self._settings) as services:
            yield services

    def create_first_keys(self) -> None:
        """Make the first signing keys of every ring, and plan what comes of them.

        A server would plan it soon after, in the midst of what a test looks at.
        """
        with self._services() as services:
            create_missing_keys(services, actor=ACTOR)
            for ring in services.key_rings.ring_names():
                rotator_of(services).tick(ring, actor=ACTOR)
        self._tell()

    @contextmanager
    def change(self) -> Iterator[tuple[Services, Session]]:
        """Yield the services and a transaction; when it is committed, the application reads it."""
        with self._services() as services, services.transaction() as session:
            yield services, session
        self._tell()

    def _tell(self) -> None:
        for reader in self.tell:
            reader()

    def import_scopes(self) -> None:
        """Import the G2P Connect catalogue; what is there already stays."""
        if self._has_scopes:
            return
        with self.change() as (services, session):
            services.scopes.import_catalogue(session, CATALOGUE, actor=ACTOR)
        self._has_scopes = self._held is not None

    def make_resource_server(
        self, client_id: str = "mapper", method: str = "client_secret_basic", **values: object
    ) -> Credentials:
        """Make a resource server that owns every scope below its id; return its credentials."""
        self.import_scopes()
        identifier = RESOURCE_SERVERS.get(client_id, f"https://{client_id}.example")
        fields = {
            "name": client_id.title(),
            "identifier": identifier,
            "authentication_method": method,
        }
        with self.change() as (services, session):
            services.clients.create_resource_server(
                session, actor=ACTOR, id=client_id, **fields | values
            )
            owned = [scope.name for scope in CATALOGUE if scope.name.startswith(f"{client_id}/")]
            services.scopes.assign(session, owned, client_id, actor=ACTOR)
            return self._add_secret(services, session, client_id, method)

    def make_client(
        self, client_id: str = "ministry", method: str = "client_secret_post", **values: object
    ) -> Credentials:
        """Make a client, for `mapper/link` unless told otherwise; return its credentials."""
        self.import_scopes()
        fields = {
            "name": client_id.title(),
            "authentication_method": method,
            "allowed_scopes": ["mapper/link", "mapper/resolve"],
            "default_scopes": ["mapper/link"],
        }
        with self.change() as (services, session):
            services.clients.create_client(session, actor=ACTOR, id=client_id, **fields | values)
            return self._add_secret(services, session, client_id, method)

    def add_secret(self, client_id: str, method: str = "client_secret_post") -> Credentials:
        """Give a party one more secret; return the credentials with it."""
        with self.change() as (services, session):
            return self._add_secret(services, session, client_id, method)

    def _add_secret(self, services, session, client_id: str, method: str) -> Credentials:
        _, secret = services.clients.add_secret(session, client_id, actor=ACTOR)
        self.watch.note_basic(client_id, secret)
        return Credentials(client_id, secret, method)


@dataclass(frozen=True)
class Demo:
    """The usual cast: two resource servers, and a client for each authentication method."""

    mapper: Credentials
    disburse: Credentials
    clients: Mapping[str, Credentials]

    @property
    def post(self) -> Credentials:
        """The client that sends its secret in the form."""
        return self.clients["client_secret_post"]

    @property
    def basic(self) -> Credentials:
        """The client that sends its secret by HTTP Basic."""
        return self.clients["client_secret_basic"]


def make_demo(parties: Parties) -> Demo:
    """Make the usual cast; its clients may ask for every mapper and disburse scope."""
    with parties.together():
        mapper, disburse = (parties.make_resource_server(name) for name in RESOURCE_SERVERS)
        scopes = [each.name for each in CATALOGUE if each.name.split("/")[0] in RESOURCE_SERVERS]
        clients = {
            method: parties.make_client(f"client-{method[14:]}", method, allowed_scopes=scopes)
            for method in ("client_secret_post", "client_secret_basic")
        }
    return Demo(mapper, disburse, clients)


def take_demo(
    url: str, folder: Path, watch: SecretsWatch, overrides: Mapping[str, Any]
) -> Demo | None:
    """Return the usual cast of an unused database, with its keys; None where it has to be made.

    Its secrets are noted. The settings of the database, with these overrides, are to be in the
    folder.
    """
    demo = take_prepared(url, folder, overrides, "usual parties", _prepare_demo)
    if demo is not None:
        note_demo(watch, demo)
    return demo


def note_demo(watch: SecretsWatch, demo: Demo) -> None:
    """Remember the secrets of a cast."""
    for each in (demo.mapper, demo.disburse, *demo.clients.values()):
        watch.note_basic(each.id, each.secret)


def demo_with_keys(
    parties: Parties, url: str, folder: Path, overrides: Mapping[str, Any] = MappingProxyType({})
) -> Demo:
    """Return the usual cast of a database, made with its keys unless they can be copied.

    Copies need the secrets of prepared databases in the folder, before its settings are read.
    """
    demo = take_demo(url, folder, parties.watch, overrides)
    if demo is None:
        with parties.together():
            parties.create_first_keys()
            demo = make_demo(parties)
    return demo


def _prepare_demo(url: str, folder: Path) -> Demo:
    parties = Parties(load_settings(write_settings(folder, url, {})), SecretsWatch())
    with parties.together():
        parties.create_first_keys()
        return make_demo(parties)
