"""The registry's services on a database of a test, without an application around them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session

from authz_server.clients.registrations import is_admin_api, is_resource_server
from authz_server.clients.secrets import SecretScheme
from authz_server.clients.service import ClientService
from authz_server.clients.validation import ClientLimits
from authz_server.scopes.g2p_connect import CATALOGUE
from authz_server.scopes.service import ScopeService, find_canonical_names
from authz_server.tokens.programmes import leave_programmes
from authz_server.tokens.revocations import RevocationService
from authz_server.tokens.stops import require_no_stop

ACTOR = "operator:tester"
LIMITS = ClientLimits(
    maximum_token_lifetime_seconds=3_600,
    ring_names=frozenset({"es256", "rs256"}),
    grant_types=("client_credentials",),
    authentication_methods=(
        *("client_secret", "client_secret_basic", "client_secret_post"),
        "client_secret_jwt",
    ),
)


class Registry:
    """Services over one database; every `session()` is one transaction."""

    def __init__(self, url: str, clock) -> None:
        self.engine = _engine(url)
        self.clock = clock
        self.secrets = SecretScheme(b"p" * 32, argon2_concurrency=2)
        revocations = RevocationService(clock, 3_600)
        self.scopes = ScopeService(
            clock, is_resource_server, is_admin_api, require_no_stop, lambda: revocations
        )
        self.clients = ClientService(
            clock,
            self.secrets,
            lambda: LIMITS,
            find_canonical_names,
            lambda: revocations,
            require_no_stop=lambda session, server_id: require_no_stop(
                session, resource_server_id=server_id
            ),
            leave_programmes=leave_programmes,
        )

    @contextmanager
    def session(self) -> Iterator[Session]:
        session = Session(self.engine, expire_on_commit=False)
        with session, session.begin():
            yield session

    def import_g2p_connect(self) -> None:
        with self.session() as session:
            self.scopes.import_catalogue(session, CATALOGUE, actor=ACTOR)

    def create_client(self, **values):
        values = {"id": "ministry", "name": "Ministry", "allowed_scopes": ["mapper/link"]} | values
        with self.session() as session:
            return self.clients.create_client(session, actor=ACTOR, **values)

    def create_resource_server(self, **values):
        defaults = {"id": "mapper", "name": "Mapper", "identifier": "https://mapper.example/"}
        with self.session() as session:
            return self.clients.create_resource_server(session, actor=ACTOR, **defaults | values)


def later(clock, seconds: float) -> datetime:
    """Return the instant so many seconds after the clock's present."""
    return datetime.fromtimestamp(clock().timestamp() + seconds, tz=clock().tzinfo)


def _engine(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _enforce_foreign_keys(connection, _record) -> None:
            connection.execute("PRAGMA foreign_keys = ON")

    return engine
