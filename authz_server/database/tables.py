"""The tables of this release, and whether a database has them."""

from importlib import import_module

from sqlalchemy import Connection, MetaData, Table
from sqlalchemy.exc import DBAPIError

from authz_server.database.errors import describe_failure
from authz_server.database.orm import Base
from authz_server.database.schema import (
    SchemaError,
    name_database,
    opened_database,
    require_schema,
)
from authz_server.settings.database import DatabaseSettings

#: The modules that define tables. They are above this package, which knows them by name alone.
_MODULES = (
    "audit.models",
    "audit.pending_changes",
    "clients.counters.database",
    "clients.models",
    "clients.registration.models",
    "database.change_feed",
    "database.clock",
    "database.idempotency",
    "database.operator_sessions",
    "database.operators",
    "database.single_use",
    "key_rings.consumers",
    "key_rings.models",
    "key_rings.private_keys",
    "scopes.models",
    "scopes.uses",
    "tokens.event_streams.models",
    "tokens.models",
    "tokens.status_lists.models",
)
#: A table that is locked longer than this is there.
_LOCK_MILLISECONDS = 100


def load_tables() -> MetaData:
    """Return all tables of this release, also those that this process has not imported yet."""
    for module in _MODULES:
        import_module(f"authz_server.{module}")
    return Base.metadata


def require_whole_schema(settings: DatabaseSettings, *, is_patient: bool = True) -> None:
    """Raise unless the schema has the revision and the tables of this release.

    Args:
        settings: name the database.
        is_patient: whether a migration in progress is waited for, beyond the settings' time limit.

    Raises:
        SchemaError: another revision, no schema, or a part of it is missing or may not be read.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    require_schema(settings, is_patient=is_patient)
    require_tables(settings)


def require_tables(settings: DatabaseSettings) -> None:
    """Raise unless each table of this release can be read, with each of its columns.

    The revision alone does not show what a restored copy lacks, or what a role may not read.

    Args:
        settings: name the database; its schema is that of this release.

    Raises:
        SchemaError: a table or a column is missing, or may not be read.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    tables = load_tables().tables.values()
    with opened_database(settings) as database:
        # Each statement is its own transaction: locks that are kept would stop a migration.
        engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            if database.connector is not None:
                connection.exec_driver_sql(f"SET lock_timeout = {_LOCK_MILLISECONDS}")
            for table in tables:
                _require_table(connection, table, settings)


def _require_table(connection: Connection, table: Table, settings: DatabaseSettings) -> None:
    # As text: to compile a statement for each table takes a tenth of a second in each start.
    names = connection.dialect.identifier_preparer
    columns = ", ".join(map(names.format_column, table.columns))
    statement = f"SELECT {columns} FROM {names.format_table(table)} WHERE 1 = 0"  # noqa: S608 - our names
    try:
        connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if _is_locked(error):  # by a migration or a backup: the table is there
            return
        if not _is_of_schema(error):
            raise
        raise SchemaError(
            f"The table {table.name} of {name_database(settings)} cannot be read: "
            f"{describe_failure(error)}. Restore a whole backup, or grant the server's "
            "role SELECT, INSERT, UPDATE and DELETE on all tables."
        ) from error


def _is_locked(error: DBAPIError) -> bool:
    # PostgreSQL, appendix A: deadlock_detected, statement_timeout and lock_timeout.
    state = getattr(error.orig, "sqlstate", None)
    return state in {"40P01", "57014", "55P03"}


def _is_of_schema(error: DBAPIError) -> bool:
    # PostgreSQL, appendix A: class 42 is about names and access.
    state = getattr(error.orig, "sqlstate", None) or ""
    return state.startswith("42") or getattr(error.orig, "sqlite_errorname", "") == "SQLITE_ERROR"
