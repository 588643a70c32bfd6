"""Schema revision: read, require, upgrade and downgrade.

Alembic and Flask-Migrate are imported to change a schema only. A server reads the revision when it
starts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from sqlalchemy import Connection, inspect, text

from authz_server.database.orm import Database, open_database
from authz_server.database.sqlite import find_file
from authz_server.database.statistics import gather_statistics
from authz_server.errors import OperatorError
from authz_server.settings.database import DatabaseSettings

MIGRATIONS = Path(__file__).with_name("migrations")
#: The revisions that this release knows, in order: the numbers of the migrations.
REVISIONS = tuple(sorted(each.name[:4] for each in MIGRATIONS.glob("versions/[0-9]*.py")))
#: The revision that this release needs.
HEAD = REVISIONS[-1]
#: The revision of the previous release.
PREVIOUS_RELEASE = "0002"
_MIGRATION_TIMEOUT_MILLISECONDS = 60_000


class SchemaError(OperatorError):
    """The schema has the wrong revision; the message gives the remedy."""


@dataclass(frozen=True, slots=True)
class SchemaState:
    """The schema of a database.

    Attributes:
        current: its revision; None without a schema.
        head: the revision that this release needs.
        is_newer: whether this release does not know the revision.
        database: the name of the database in messages.
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
        """Return the problem and the remedy as sentences; empty if the schema is current."""
        if self.is_current:
            return ""
        if self.is_newer:
            return (
                f"The schema of {self.database} is at {self.current}, made by a newer release or "
                f"another application: this release needs {self.head}. Install the newer release, "
                "run its `authz-server db downgrade`, or restore a backup."
            )
        if self.current is None:
            return (
                f"There is no schema in {self.database}: run `authz-server db upgrade`, "
                "or correct database.url."
            )
        return (
            f"The schema of {self.database} is at {self.current}, this release needs {self.head}: "
            "run `authz-server db upgrade`."
        )


def read_schema(
    settings: DatabaseSettings, *, missing_file: bool = False, is_patient: bool = True
) -> SchemaState:
    """Return the state of the schema.

    Args:
        settings: name the database.
        missing_file: whether an SQLite file may be missing; it is not created.
        is_patient: whether a migration in progress is waited for, beyond the settings' time limit.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    current = None
    if not (missing_file and _is_missing(settings)):
        with (
            opened_database(_patient(settings) if is_patient else settings) as database,
            database.engine.connect() as connection,
        ):
            current = _read_revision(connection)
    return describe_schema(current, settings)


def describe_schema(current: str | None, settings: DatabaseSettings) -> SchemaState:
    """Return the state of a schema whose revision is ``current``; None: there is no schema."""
    newer = current is not None and current not in REVISIONS
    return SchemaState(current, HEAD, newer, name_database(settings))


def require_schema(settings: DatabaseSettings, *, is_patient: bool = True) -> None:
    """Raise unless the schema has the revision of this release.

    Args:
        settings: name the database.
        is_patient: as for :func:`read_schema`.

    Raises:
        SchemaError: it has another revision, or there is no schema.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    if sentence := read_schema(settings, is_patient=is_patient).explain():
        raise SchemaError(sentence)


def upgrade_database(settings: DatabaseSettings) -> None:
    """Upgrade the schema to this release; safe to run several times at once.

    A missing SQLite file is created.

    Raises:
        SchemaError: the schema is from a newer release.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer or refuses the change.
    """
    state = read_schema(settings, missing_file=True)
    if state.is_newer:
        raise SchemaError(state.explain())
    import flask_migrate  # noqa: PLC0415 - see above

    with _migration_context(settings, may_create=True) as database:
        flask_migrate.upgrade(str(MIGRATIONS))
        if state.current is not None and not state.is_current:
            gather_statistics(database.engine)


def downgrade_database(settings: DatabaseSettings, revision: str = PREVIOUS_RELEASE) -> None:
    """Downgrade the schema to an earlier revision; data that only the later one holds is lost.

    Args:
        settings: name the database.
        revision: the target revision.

    Raises:
        SchemaError: the schema is newer than this release, or not later than ``revision``.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer or refuses the change.
    """
    require_later(settings, revision)
    import flask_migrate  # noqa: PLC0415 - see above

    with _migration_context(settings):
        flask_migrate.downgrade(str(MIGRATIONS), revision)


def require_later(settings: DatabaseSettings, revision: str) -> str:
    """Return the revision of the schema, which can be downgraded to ``revision``.

    Raises:
        SchemaError: the schema is newer than this release, or not later than ``revision``.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    state = read_schema(settings)
    if state.is_newer or state.current is None:
        raise SchemaError(state.explain())
    if revision not in REVISIONS:
        raise SchemaError(f"There is no schema {revision}: this release knows up to {HEAD}.")
    if revision >= state.current:
        raise SchemaError(f"The schema is at {state.current}, which is not later than {revision}.")
    return state.current


@contextmanager
def opened_database(settings: DatabaseSettings, *, may_create: bool = False) -> Iterator[Database]:
    """Yield a database without the other parts of a server; close it at the end."""
    database = open_database(settings, may_create=may_create)
    try:
        yield database
    finally:
        database.close()


def name_database(settings: DatabaseSettings) -> str:
    """Return the name of the database in messages."""
    parts = settings.parts
    if parts.is_sqlite:
        return f"the database file {parts.file}"
    values = parts.parameters
    place = values.get("host") or values.get("service") or "the local socket"
    return f"the database {values.get('dbname') or values.get('user') or '(by default)'} at {place}"


def _read_revision(connection: Connection) -> str | None:
    """Return the revision that Alembic recorded; None if it recorded none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _is_missing(settings: DatabaseSettings) -> bool:
    parts = settings.parts
    return bool(parts.file) and find_file(parts.file) is None


def _patient(settings: DatabaseSettings) -> DatabaseSettings:
    return msgspec.structs.replace(
        settings, statement_timeout_milliseconds=_MIGRATION_TIMEOUT_MILLISECONDS, pool_size=1
    )


@contextmanager
def _migration_context(
    settings: DatabaseSettings, *, may_create: bool = False
) -> Iterator[Database]:
    """Enter what Flask-Migrate looks for: an application that has the database."""
    import flask_migrate  # noqa: PLC0415 - see above
    from flask import Flask  # noqa: PLC0415

    app = Flask("authz_server.schema", static_folder=None, template_folder=None)
    with opened_database(_patient(settings), may_create=may_create) as database, app.app_context():
        flask_migrate.Migrate(app, database, directory=str(MIGRATIONS), compare_type=True)
        yield database
