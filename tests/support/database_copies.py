"""Copies of one PostgreSQL database, used again by the next test after they were emptied.

`CREATE DATABASE` and `DROP DATABASE` write and remove some hundred files each. Taking away the rows
that a test wrote costs a small part of that.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import sql

from support.postgresql_access import PostgresAccess, database_name

#: What writes into a database, by its URL; the folder is for files that it needs.
Fill = Callable[[str, Path], Any]
#: Deleted rows stay in the files, as nothing is vacuumed: a copy ends after so many uses or rows.
_USES = 100
_ROWS = 2_000
_DISCONNECT = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s"
_CATALOGUES = (
    "pg_attrdef",
    "pg_attribute",
    "pg_class",
    "pg_constraint",
    "pg_default_acl",
    "pg_event_trigger",
    "pg_extension",
    "pg_index",
    "pg_namespace",
    "pg_policy",
    "pg_proc",
    "pg_trigger",
    "pg_type",
)
# Transactions that wrote the catalogue: after a change of the schema, of a function, a trigger, a
# right or a default, they are others.
_WRITERS = sql.SQL("SELECT {}, count(*), sum(xmin::text::bigint) FROM {}")
_SETTINGS = sql.SQL("""SELECT 'settings', count(*), 0 FROM pg_db_role_setting
WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())""")
_SCHEMA = sql.SQL(" UNION ALL ").join(
    [*(_WRITERS.format(sql.Literal(each), sql.Identifier(each)) for each in _CATALOGUES), _SETTINGS]
)
# A table without a page never had a row; to delete from it costs as much as from another one.
_TABLES = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
AND pg_relation_size(oid) > 0 ORDER BY 1
"""
_UNUSED = "SELECT NOT EXISTS (SELECT 1 FROM audit_record)"
_SEQUENCES = """
SELECT format('%I.%I', schemaname, sequencename), last_value, start_value FROM pg_sequences
"""


@dataclass(frozen=True)
class _Content:
    """A copy's schema, and the statements that delete its rows and insert them again."""

    schema: list[tuple]
    deletions: sql.Composable
    insertions: sql.Composable


class DatabaseCopies:
    """Copies of the database named `template` on one server; each has a new name at every use.

    A context manager: it keeps one connection.
    """

    def __init__(self, access: PostgresAccess, template: str) -> None:
        self._access, self._template = access, template
        self._pristine: _Content | None = None
        self._free: list[str] = []
        self._uses: dict[str, int] = {}
        self._kept: psycopg.Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._kept is not None:
            self._kept.close()

    def take(self) -> str:
        """Return the URL of a database like the template.

        A connection that a former user of the copy opens finds no database of its name.
        """
        if not self._free:
            url = self._access.create_database(self._template)
            self._uses[url] = 0
            if self._pristine is None:
                self._pristine = self._read(url)
            return url
        former = self._free.pop()
        url = self._access.url(f"test_{secrets.token_hex(8)}")
        names = map(sql.Identifier, map(database_name, (former, url)))
        self._administer(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*names))
        self._uses[url] = self._uses.pop(former)
        return url

    def read(self, url: str) -> str:
        """Return what :meth:`write` makes an unused copy by like this one."""
        script = _script([self._pristine.deletions, self._read(url).insertions])
        with self._connect(url) as connection:
            return script.as_string(connection)

    def write(self, url: str, script: str) -> None:
        """Write into an unused copy what another one has."""
        with self._connect(url) as connection:
            # Neither foreign keys nor triggers.
            connection.execute("SET LOCAL session_replication_role = replica")
            connection.execute(script)

    def is_unused(self, url: str) -> bool:
        """Return whether a database is a copy that no change was recorded of."""
        if url not in self._uses:
            return False
        with self._connect(url) as connection:
            (is_unused,) = connection.execute(_UNUSED).fetchone()
            return is_unused

    def give_back(self, url: str) -> None:
        """End all connections to the database of `url`; empty it for the next use, or drop it."""
        self._uses[url] += 1
        try:
            usable = self._uses[url] < _USES and self._restore(url)
        except psycopg.OperationalError:
            usable = False  # closed by the test, or renamed, or dropped
        if usable:
            self._free.append(url)
        else:
            self._access.drop_database(url)

    def _read(self, url: str) -> _Content:
        with self._connect(url) as connection:
            tables = _tables_of(connection)
            insertions = [*filter(None, (_insertion(connection, table) for table in tables))]
            insertions += [_position(*row) for row in connection.execute(_SEQUENCES)]
            return _Content(
                schema=connection.execute(_SCHEMA).fetchall(),
                deletions=_deletions(tables),
                insertions=_script(insertions),
            )

    def _restore(self, url: str) -> bool:
        """Return whether the database is like the template again."""
        pristine = self._pristine
        self._administer(_DISCONNECT, database_name(url))
        with self._connect(url) as connection:
            if connection.execute(_SCHEMA).fetchall() != pristine.schema:
                return False
            # Neither foreign keys nor triggers that refuse a deletion.
            connection.execute("SET LOCAL session_replication_role = replica")
            cursor = connection.execute(_deletions(_tables_of(connection)))
            deleted = cursor.rowcount
            while cursor.nextset():
                deleted += cursor.rowcount
            connection.execute(pristine.insertions)
        return deleted < _ROWS

    def _administer(self, statement: Any, *parameters: object) -> None:
        """Run a statement on the connection that is kept; a test may have ended it."""
        if self._kept is not None:
            try:
                self._kept.execute(statement, parameters)
            except psycopg.OperationalError:
                self._kept.close()
            else:
                return
        self._kept = psycopg.connect(
            self._access.url().replace("+psycopg", ""), autocommit=True, connect_timeout=10
        )
        self._kept.execute(statement, parameters)

    @staticmethod
    def _connect(url: str) -> psycopg.Connection:
        return psycopg.connect(url.replace("+psycopg", ""), connect_timeout=10)


def _tables_of(connection: psycopg.Connection) -> list[sql.Identifier]:
    return [sql.Identifier(name) for (name,) in connection.execute(_TABLES)]


def _deletions(tables: list[sql.Identifier]) -> sql.Composable:
    return _script([sql.SQL("DELETE FROM {}").format(table) for table in tables])


def _insertion(connection: psycopg.Connection, table: sql.Identifier) -> sql.Composable | None:
    """Return the statement that fills an empty table with its present rows, None without any."""
    query = sql.SQL("SELECT json_agg(t)::text FROM {} t").format(table)
    (rows,) = connection.execute(query).fetchone()
    if rows is None:
        return None
    return sql.SQL(
        "INSERT INTO {0} OVERRIDING SYSTEM VALUE"
        " SELECT * FROM json_populate_recordset(NULL::{0}, {1})"
    ).format(table, sql.Literal(rows))


def _position(name: str, last: int | None, start: int) -> sql.Composable:
    """Return the statement that sets a sequence to its position in an unused copy."""
    position = start if last is None else last
    return sql.SQL("SELECT setval({}, {}, {})").format(
        sql.Literal(name), sql.Literal(position), sql.Literal(last is not None)
    )


def _script(statements: list[sql.Composable]) -> sql.Composable:
    return sql.SQL("; ").join(statements)
