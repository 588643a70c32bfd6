"""The schema: which revision a database has, and how it is brought to the one of this release."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import flask_migrate
import msgspec
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from flask import Flask

from authz_server.database.orm import Database, attach_database, db
from authz_server.database.sqlite import find_file
from authz_server.settings.database import DatabaseSettings

MIGRATIONS = Path(__file__).with_name("migrations")
#: The revision that the release before this one needs.
PREVIOUS_RELEASE = "0002"
_MIGRATION_TIMEOUT_MILLISECONDS = 60_000


class SchemaError(Exception):
    """The schema is not the one that is needed; the message gives the remedy."""


@dataclass(frozen=True, slots=True)
class SchemaState:
    """The schema of a database.

    Attributes:
        current: its revision; None where there is no schema.
        head: the revision that this release needs.
        is_newer: whether this release does not know the revision.
        database: the database as messages name it.
    """

    current: str | None
    head: str
    is_newer: bool
    database: str

    @property
    def is_current(self) -> bool:
        """Whether the schema is the one that this release needs."""
        return self.current == self.head

    def explain(self) -> str:
        """Return in whole sentences what is wrong and what to do; empty where nothing is."""
        if self.is_current:
            return ""
        if self.is_newer:
            return (
                f"The schema of {self.database} is at {self.current}, which a newer release has "
                f"made, or another application: this release needs {self.head}. Install the newer "
                "one, run its `authz-server db downgrade`, or restore a backup."
            )
        if self.current is None:
            return (
                f"There is no schema in {self.database}: run `authz-server db upgrade`, "
                "unless database.url should name another one."
            )
        return (
            f"The schema of {self.database} is at {self.current}, this release needs {self.head}: "
            "run `authz-server db upgrade`."
        )


def read_schema(settings: DatabaseSettings, *, missing_file: bool = False) -> SchemaState:
    """Return the state of the schema.

    Args:
        settings: name the database.
        missing_file: whether an SQLite file may be missing, which is then not made.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    scripts = ScriptDirectory(str(MIGRATIONS))
    head = scripts.get_current_head()
    if head is None:
        message = "this installation has no migrations"
        raise RuntimeError(message)
    current = None
    if not (missing_file and _is_missing(settings)):
        with _schema_application(settings, may_create=False), db.engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
    newer = current is not None and not _knows(scripts, current)
    return SchemaState(current, head, newer, _name(settings))


def require_schema(settings: DatabaseSettings) -> None:
    """Return where the schema is the one that this release needs.

    Raises:
        SchemaError: it is another, or there is none.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    if sentence := read_schema(settings).explain():
        raise SchemaError(sentence)


def upgrade_database(settings: DatabaseSettings) -> None:
    """Bring the schema up to this release; several may try at once, one does it.

    An SQLite file that is missing is made.

    Raises:
        SchemaError: a newer release has made the schema.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer or refuses the change.
    """
    state = read_schema(settings, missing_file=True)
    if state.is_newer:
        raise SchemaError(state.explain())
    with _schema_application(settings, may_create=True):
        flask_migrate.upgrade(str(MIGRATIONS))


def downgrade_database(settings: DatabaseSettings, revision: str = PREVIOUS_RELEASE) -> None:
    """Take the schema back to an earlier revision; what only the later one holds is lost.

    Args:
        settings: name the database.
        revision: the one to go to.

    Raises:
        SchemaError: the schema is newer than this release, or not later than ``revision``.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer or refuses the change.
    """
    state = read_schema(settings)
    scripts = ScriptDirectory(str(MIGRATIONS))
    if state.is_newer or state.current is None:
        raise SchemaError(state.explain())
    if not _knows(scripts, revision):
        raise SchemaError(f"There is no schema {revision}: this release knows up to {state.head}.")
    earlier = {each.revision for each in scripts.iterate_revisions(state.current, "base")}
    if revision not in earlier - {state.current}:
        raise SchemaError(f"The schema is at {state.current}, which is not later than {revision}.")
    with _schema_application(settings, may_create=False):
        flask_migrate.downgrade(str(MIGRATIONS), revision)


@contextmanager
def opened_database(settings: DatabaseSettings) -> Iterator[Database]:
    """Yield a database by itself, without the parts of a server; closed at the end."""
    database = attach_database(Flask("authz_server.opened"), settings)
    try:
        yield database
    finally:
        database.close()


def _knows(scripts: ScriptDirectory, revision: str) -> bool:
    try:
        return bool(revision) and scripts.get_revision(revision).revision == revision
    except CommandError:
        return False


def _is_missing(settings: DatabaseSettings) -> bool:
    parts = settings.parts
    return bool(parts.file) and find_file(parts.file) is None


def _name(settings: DatabaseSettings) -> str:
    parts = settings.parts
    if parts.is_sqlite:
        return f"the database file {parts.file}" if parts.file else "the database in memory"
    values = parts.parameters
    place = values.get("host") or values.get("service") or "the local socket"
    return f"the database {values.get('dbname') or values.get('user') or '(by default)'} at {place}"


@contextmanager
def _schema_application(settings: DatabaseSettings, *, may_create: bool) -> Iterator[None]:
    app = Flask("authz_server.schema", static_folder=None, template_folder=None)
    attach_database(
        app,
        msgspec.structs.replace(
            settings, statement_timeout_milliseconds=_MIGRATION_TIMEOUT_MILLISECONDS, pool_size=1
        ),
        may_create=may_create,
    )
    flask_migrate.Migrate(app, db, directory=str(MIGRATIONS), compare_type=True)
    with app.app_context():
        try:
            yield
        finally:
            db.engine.dispose()
