"""From each schema to the next and back, with what stands in the tables."""

from datetime import UTC, datetime

import flask_migrate
import pytest
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import insert, inspect, text
from sqlalchemy.schema import CreateIndex

from authz_server.audit.pending_changes import PendingChange
from authz_server.clients.models import Client, ClientSecret
from authz_server.database.orm import open_database
from authz_server.database.schema import HEAD, MIGRATIONS, REVISIONS
from authz_server.key_rings.event_log import load_events, verify_event_chain
from authz_server.key_rings.store import SqlKeyStore
from authz_server.scopes.uses import ScopeUse
from authz_server.settings import DatabaseSettings
from keys.signing_key import KeyState
from keys.testing import MOMENT, KeyStoreContract

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def test_the_revisions_are_the_numbers_of_the_migrations_in_alembics_order():
    scripts = ScriptDirectory(str(MIGRATIONS))
    in_order = tuple(each.revision for each in scripts.walk_revisions())[::-1]
    assert in_order == REVISIONS
    assert scripts.get_heads() == [HEAD]


class Schema:
    """A database that is brought from revision to revision."""

    def __init__(self, url: str) -> None:
        self._app = Flask("migrations-test")
        self.database = open_database(DatabaseSettings(url=url), may_create=True)
        flask_migrate.Migrate(self._app, self.database, directory=str(MIGRATIONS))

    def upgrade(self, revision: str) -> None:
        with self._app.app_context():
            flask_migrate.upgrade(str(MIGRATIONS), revision)

    def downgrade(self, revision: str) -> None:
        with self._app.app_context():
            flask_migrate.downgrade(str(MIGRATIONS), revision)

    def run(self, statement: str, **values: object) -> list[tuple]:
        with self.database.transaction() as session:
            result = session.execute(text(statement), values)
            return [tuple(row) for row in result] if result.returns_rows else []

    def add_ring(self, name: str) -> None:
        """Add a ring of two keys as the first schema has them."""
        self.run(
            "INSERT INTO key_ring VALUES (:name, 'ES256', 'sql://', 2, 3600, 86400, 2592000)",
            name=name,
        )
        for version in (1, 2):
            self.run(
                "INSERT INTO signing_key (kid, ring, version, alg, public_jwk, state, created_at)"
                " VALUES (:kid, :ring, :version, 'ES256', '{}', 'published', :at)",
                kid=f"{name}-{version}",
                ring=name,
                version=version,
                at=self.written(AT),
            )

    def add_event(self, ring: str, version: int) -> None:
        """Add an event as the first schema has them."""
        self.run(
            "INSERT INTO key_event (ring, epoch, kid, event, actor, reason, at)"
            " VALUES (:ring, :epoch, :kid, 'key.published', 'operator:ada', 'né à midi', :at)",
            ring=ring,
            epoch=version,
            kid=f"{ring}-{version}",
            at=self.written(AT),
        )

    def written(self, at: datetime) -> object:
        sqlite = self.database.engine.dialect.name == "sqlite"
        return at.strftime("%Y-%m-%d %H:%M:%S.%f") if sqlite else at

    def hashes(self, ring: str) -> list[str]:
        """Return the hashes of a ring's events, whose chain is whole."""
        with self.database.reading() as session:
            assert verify_event_chain(session, ring) is None
            return [event.hash for event in load_events(session, ring)]


@pytest.fixture
def schema(empty_database_url):
    schema = Schema(empty_database_url)
    schema.upgrade("0001")
    schema.add_ring("es256")
    yield schema
    schema.database.close()


def test_events_of_the_first_schema_are_chained(schema: Schema):
    schema.add_ring("rs256")
    for version in (1, 2):
        for ring in ("es256", "rs256"):
            schema.add_event(ring, version)
    schema.upgrade("0002")
    hashes = schema.hashes("es256") + schema.hashes("rs256")
    assert len(set(hashes)) == 4
    with schema.database.reading() as session:
        assert {event.at for event in load_events(session, "es256")} == {AT}


def test_the_chain_goes_on_after_an_upgrade(schema: Schema):
    schema.add_event("es256", 1)
    schema.upgrade("head")
    store = SqlKeyStore(schema.database.transaction, schema.database.reading)
    (ring,) = store.load_rings(MOMENT)
    assert (ring.frozen, ring.successor, ring.cautious_until) == (False, None, None)
    change = KeyStoreContract().change(3, KeyState.PUBLISHED, ring="es256")
    assert store.change_ring("es256", 2, [change])
    assert len(schema.hashes("es256")) == 2


#: Kind, method before, and method after the third schema.
METHODS = (
    ("client", "client_secret_post", "client_secret"),
    ("client", "client_secret_basic", "client_secret_basic"),
    ("resource_server", "client_secret_basic", "client_secret"),
    ("resource_server", "client_secret_post", "client_secret_post"),
)


def test_parties_at_the_former_default_may_use_either_method(schema: Schema):
    """Case A7."""
    schema.upgrade("0002")
    for number, (kind, method, _) in enumerate(METHODS):
        schema.run(
            "INSERT INTO client (id, kind, name, organisation, enabled, authentication_method,"
            " grant_types, allowed_scopes, default_scopes, allowed_resource_servers, permissions,"
            " created_at, updated_at)"
            " VALUES (:id, :kind, 'A', '', true, :method, '[]', '[]', '[]', '[]', '[]', :at, :at)",
            id=f"party-{number}",
            kind=kind,
            method=method,
            at=schema.written(AT),
        )

    def methods() -> list[str]:
        return [
            row[0] for row in schema.run("SELECT authentication_method FROM client ORDER BY id")
        ]

    schema.upgrade("0003")
    assert methods() == [after for _, _, after in METHODS]
    schema.downgrade("0002")
    assert methods() == [before for _, before, _ in METHODS]


def test_back_to_the_first_schema_and_forth_again(schema: Schema):
    schema.add_event("es256", 1)
    tables = ("key_event", "key_ring", "signing_key")
    before = [schema.run(f"SELECT * FROM {table}") for table in tables]  # noqa: S608 - fixed names
    schema.upgrade("0002")
    schema.run(
        "INSERT INTO key_event (ring, epoch, kid, event, actor, reason, at, previous_hash, hash)"
        " SELECT ring, 3, NULL, 'ring.frozen', actor, reason, at, hash, 'h' FROM key_event"
    )
    schema.downgrade("0001")
    # The ring's own events cannot be kept; everything else is as it was.
    assert [schema.run(f"SELECT * FROM {table}") for table in tables] == before  # noqa: S608
    schema.upgrade("0002")
    assert len(schema.hashes("es256")) == 1


#: Id, operation and state of a change before the downgrade, and its state after it.
CHANGES = (
    ("files", "apply_declaration", "pending", "failed"),
    ("keys", "keys.destroy", "pending", "failed"),
    ("scopes", "import_g2p_connect", "pending", "failed"),
    ("done", "keys.destroy", "unconfirmed", "unconfirmed"),
    ("client", "update_client", "pending", "pending"),
)


def test_what_the_release_before_cannot_carry_out_has_failed(schema: Schema):
    """With its secrets, short or long; an act that was done still waits for a confirmation."""
    schema.upgrade("head")
    texts = (
        "subject",
        "basis",
        "reason",
        "requested_by",
        "requester",
        "decision_reason",
        "problem",
    )
    empty = {**dict.fromkeys(texts, ""), "acts": [], "resource_servers": [], "groups": []}
    empty |= {"kind": "approval", "arguments": {}, "diff": {}, "requested_at": AT}
    rows = [
        {
            **empty,
            "id": name,
            "operation": operation,
            "state": state,
            "secret_record": "r" * (400 if name == "files" else 9),
        }
        for name, operation, state, _ in CHANGES
    ]
    with schema.database.transaction() as session:
        session.execute(insert(PendingChange), rows)
    schema.downgrade("0017")
    stored = schema.run(
        "SELECT id, operation, state, secret_record IS NULL, decided_at IS NULL FROM pending_change"
    )
    assert {(*row[:3], bool(row[3]), bool(row[4])) for row in stored} == {
        (name, operation, after, after == "failed", after != "failed")
        for name, operation, _, after in CHANGES
    }
    schema.upgrade("head")


def test_what_clients_are_found_by_is_filled_and_kept(schema: Schema):
    """Of the clients that are there before, of new ones and of changed ones; not of others."""
    schema.upgrade("0021")

    def add(client_id: str, kind: str = "client") -> None:
        schema.run(
            "INSERT INTO client (id, kind, name, organisation, enabled, authentication_method,"
            " grant_types, allowed_scopes, default_scopes, allowed_resource_servers, permissions,"
            " created_at, updated_at) VALUES (:id, :kind, 'Name', 'Office', true, 'none', '[]',"
            """ '["a/b", "c", "c"]', '[]', '["mapper"]', '[]', :at, :at)""",
            id=client_id,
            kind=kind,
            at=schema.written(AT),
        )

    def found() -> list[tuple]:
        texts = schema.run("SELECT client_id, text FROM client_text ORDER BY 1")
        order = "ORDER BY client_id, kind, name"
        return texts + schema.run(f"SELECT client_id, kind, name FROM client_grant {order}")  # noqa: S608

    def rows_of(client_id: str) -> tuple[list[tuple], list[tuple]]:
        kinds = (("resource_server", "mapper"), ("scope", "a/b"), ("scope", "c"))
        text = (client_id, f"{client_id}\nname\noffice")
        return [text], [(client_id, *kind) for kind in kinds]

    add("a-old")
    add("api", "resource_server")
    schema.upgrade("0022")
    texts, grants = rows_of("a-old")
    assert found() == texts + grants
    add("new")
    add("other", "resource_server")
    more_texts, more_grants = rows_of("new")
    assert found() == texts + more_texts + grants + more_grants
    schema.run("UPDATE client SET enabled = false, updated_at = updated_at")
    assert found() == texts + more_texts + grants + more_grants
    schema.run("""UPDATE client SET name = 'B', allowed_scopes = '["d"]' WHERE kind = 'client'""")
    schema.run("DELETE FROM client WHERE id = 'a-old'")
    assert found() == [
        ("new", "new\nb\noffice"),
        ("new", "resource_server", "mapper"),
        ("new", "scope", "d"),
    ]
    schema.downgrade("0021")
    schema.run("UPDATE client SET name = 'C'")
    schema.upgrade("0022")
    assert found()[0] == ("new", "new\nc\noffice")


def test_the_pepper_of_earlier_secrets_is_not_known(schema: Schema):
    """A node of the release before adds further ones; a downgrade keeps the secrets."""
    schema.upgrade("0022")
    schema.run(
        "INSERT INTO client (id, kind, name, organisation, enabled, authentication_method,"
        " grant_types, allowed_scopes, default_scopes, allowed_resource_servers, permissions,"
        " created_at, updated_at) VALUES ('a', 'client', 'A', '', true, 'client_secret', '[]',"
        " '[]', '[]', '[]', '[]', :at, :at)",
        at=schema.written(AT),
    )

    def add(secret_id: str) -> None:
        schema.run(
            "INSERT INTO client_secret (id, client_id, record, description, created_at)"
            " VALUES (:id, 'a', 'hmac-sha256$', '', :at)",
            id=secret_id,
            at=schema.written(AT),
        )

    add("before")
    schema.upgrade("0023")
    add("later")
    rows = schema.run("SELECT id, pepper_fingerprint FROM client_secret ORDER BY id")
    assert rows == [("before", None), ("later", None)]
    for table in ("initial_access_token", "client_registration"):
        assert schema.run(f"SELECT pepper_fingerprint FROM {table}") == []  # noqa: S608
    schema.downgrade("0022")
    assert schema.run("SELECT id FROM client_secret ORDER BY id") == [("before",), ("later",)]
    schema.upgrade("head")


def test_indexes_sort_clients_by_the_expressions_of_the_model(schema: Schema):
    """Reflection leaves out indexes of expressions on SQLite; a downgrade drops them."""
    dialect = schema.database.engine.dialect
    catalogue, column = {
        "sqlite": ("sqlite_master WHERE tbl_name = 'client'", "name, sql"),
        "postgresql": ("pg_indexes WHERE tablename = 'client'", "indexname, indexdef"),
    }[dialect.name]

    def indexes() -> dict[str, str]:
        return dict(schema.run(f"SELECT {column} FROM {catalogue}"))  # noqa: S608 - as above

    schema.upgrade("0023")
    before = set(indexes())
    schema.upgrade("0024")
    added = {name: sql for name, sql in indexes().items() if name not in before}
    if dialect.name == "sqlite":
        of_model = {each.name: each for each in Client.__table__.indexes}
        for name, sql in added.items():
            assert sql == str(CreateIndex(of_model[name]).compile(dialect=dialect))
    assert set(added) == {
        "ix_client_lower_name",
        "ix_client_lower_organisation",
        "ix_client_created_at",
    }
    schema.downgrade("0023")
    assert set(indexes()) == before
    schema.upgrade("head")
    assert added.items() <= indexes().items()


def test_indexes_sort_clients_by_their_last_use(schema: Schema):
    """The model has them too; a downgrade drops them."""
    added = {"ix_client_secret_last_used_at", "ix_scope_use_last_at"}
    of_model = {
        index.name for table in (ClientSecret, ScopeUse) for index in table.__table__.indexes
    }
    assert added <= of_model

    def indexes() -> set[str]:
        tables = ("client_secret", "scope_use")
        with schema.database.engine.connect() as connection:
            found = [each for table in tables for each in inspect(connection).get_indexes(table)]
        return {each["name"] for each in found}

    schema.upgrade("0024")
    before = indexes()
    schema.upgrade("0025")
    assert indexes() - before == added
    schema.downgrade("0024")
    assert indexes() == before
    schema.upgrade("head")


def test_names_in_audit_records_are_filled_and_kept(schema: Schema):
    """Of records from before, new ones and altered ones, also of details that cannot be read."""
    schema.upgrade("0026")
    scopes = '{"scopes": ["a/b"], "clients": ["c"], "name": "d", "long_scopes": ["%s"]}' % (
        "x" * 201
    )
    records = (
        (
            "client.created",
            '{"diff": {"allowed_scopes": {"before": null, "after": ["a", "c", "c"]}}}',
        ),
        ("scope.programme_defined", scopes),
        ("token.revoked", '{"client_id": "c"}'),
        ("key.activated", '{"ring": "es256", "kid": "k", "scopes": ["a/b"]}'),
        ("client.created", r'{"scopes": ["\u0000"], "ring": "\ud800"}'),
        ("client.updated", '{"fields": ["allowed_scopes"], "client_id": "c"}'),
        ("token.revoked", '["scopes"]'),
    )
    names = [("scope", "a"), ("scope", "c"), ("scope", "a/b"), ("client", "c"), ("ring", "es256")]
    statement = "INSERT INTO audit_record (at, actor, action, subject, detail)"
    statement += " VALUES (:at, 'a', :action, 's', :detail)"

    def add_some() -> None:
        for action, detail in records:
            schema.run(statement, at=schema.written(AT), action=action, detail=detail)

    def found() -> list[tuple]:
        # SQLite has names of texts that PostgreSQL cannot store; no filter is one of them.
        return schema.run(
            "SELECT kind, name FROM audit_name JOIN audit_record ON id = record_id"
            " WHERE CAST(detail AS TEXT) NOT LIKE '%ud800%' ORDER BY record_id, kind, name"
        )

    add_some()
    schema.upgrade("0027")
    assert found() == names
    add_some()
    schema.run("UPDATE audit_record SET block = 1, at = at")
    assert found() == names * 2
    schema.run("""UPDATE audit_record SET detail = '{"ring": "b"}' WHERE action LIKE 'key.%'""")
    schema.run("DELETE FROM audit_record WHERE action NOT LIKE 'key.%'")
    assert found() == [("ring", "b")] * 2
    schema.downgrade("0026")
    schema.upgrade("0027")
    assert found() == [("ring", "b")] * 2
