"""Upgrade, downgrade, check, purge and copy the database."""

from dataclasses import dataclass
from pathlib import Path

from authz_server.assembly import Services
from authz_server.audit.restored_database import require_not_restored
from authz_server.database.checks import DatabaseReport, check_database
from authz_server.database.schema import (
    PREVIOUS_RELEASE,
    downgrade_database,
    opened_database,
    read_schema,
    upgrade_database,
)
from authz_server.database.sqlite import WriteCheck, copy_sqlite
from authz_server.errors import ConflictError
from authz_server.settings import Settings
from authz_server.settings.database import DatabaseSettings
from authz_server.tokens.purging import Purged


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaChange:
    """The schema before and after.

    Attributes:
        before: the revision before; None if there was no schema.
        after: the revision now.
        changed: True if the two differ.
    """

    before: str | None
    after: str | None
    changed: bool


def upgrade(settings: DatabaseSettings) -> SchemaChange:
    """Upgrade the schema to this release; no change if it is up to date.

    Raises:
        SchemaError: the schema is from a newer release.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer or refuses the change.
    """
    before = read_schema(settings, missing_file=True).current
    upgrade_database(settings)
    after = read_schema(settings).current
    return SchemaChange(before=before, after=after, changed=before != after)


def downgrade(settings: DatabaseSettings, revision: str = PREVIOUS_RELEASE) -> SchemaChange:
    """Downgrade the schema to that of an earlier release; newer columns and tables are dropped.

    Args:
        settings: those of the database.
        revision: the revision to downgrade to.

    Raises:
        SchemaError: the schema is not later than ``revision``.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer or refuses the change.
    """
    before = read_schema(settings).current
    downgrade_database(settings, revision)
    return SchemaChange(before=before, after=revision, changed=True)


def check(settings: Settings) -> DatabaseReport:
    """Check that the database can be reached and used by a server.

    Raises:
        RestoredDatabaseError: the database lacks changes that it had.
        DatabaseUnfitError: sessions do not persist between transactions.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer, or has no room for a change.
    """
    report = check_database(settings.database)
    if not report.problems:
        with opened_database(settings.database) as database:
            with database.reading() as session:
                require_not_restored(session, settings.audit)
            # Reading works on a full disk.
            require_writes = database.room.require if database.room else WriteCheck(database.engine)
            require_writes()
    return report


def purge(services: Services) -> Purged:
    """Delete expired rows, in small batches, which running servers may do at the same time."""
    return services.purge.run()


def require_sqlite(settings: DatabaseSettings) -> None:
    """Raise ConflictError if the database is not SQLite, which :func:`copy` requires."""
    if not settings.parts.is_sqlite:
        raise ConflictError("The database is PostgreSQL: use pg_dump --format=custom.")


def copy(settings: DatabaseSettings, file: Path) -> None:
    """Copy a consistent snapshot of an SQLite database; the server may run.

    Args:
        settings: those of the database.
        file: an empty file.

    Raises:
        ConflictError: the database is not SQLite.
        sqlalchemy.exc.SQLAlchemyError: it cannot be read, or the file cannot be written.
    """
    require_sqlite(settings)
    with opened_database(settings) as database:
        copy_sqlite(database.engine, file)
