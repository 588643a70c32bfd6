"""Roles and databases as operators have them, on the PostgreSQL server of a test run."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import sql

from authz_server.database.orm import Database, open_database
from authz_server.settings import DatabaseSettings
from support.postgresql_access import PostgresAccess


@contextmanager
def attached(url: str, **settings) -> Iterator[Database]:
    """Yield the ways to the database of that URL."""
    database = open_database(DatabaseSettings(url=url, **settings))
    try:
        yield database
    finally:
        database.close()


class Role:
    """A role without privileges beyond its own database; dropped with the test."""

    def __init__(self, access: PostgresAccess, encoding: str = "UTF8") -> None:
        self.access = access
        self.name = f"role_{secrets.token_hex(6)}"
        self.password = secrets.token_urlsafe(12)
        self._run("CREATE ROLE {} LOGIN PASSWORD {}", self.password)
        self.access.execute(
            sql.SQL(
                "CREATE DATABASE {} OWNER {} ENCODING {} LC_COLLATE 'C' LC_CTYPE 'C'"
                " TEMPLATE template0"
            ).format(sql.Identifier(self.name), sql.Identifier(self.name), sql.Literal(encoding))
        )

    def url(self, query: str = "", *, password: bool = True) -> str:
        """Return the URL of its database."""
        secret = f":{self.password}" if password else ""
        return (
            f"postgresql://{self.name}{secret}@127.0.0.1:{self.access.port}/{self.name}"
            f"{'?' if query else ''}{query}"
        )

    def set(self, name: str, value: str) -> None:
        """Give the role another value of a server setting, in each of its sessions."""
        self._run(f"ALTER ROLE {{}} SET {name} = {{}}", value)

    def change_password(self, password: str) -> None:
        """Change the password and end the sessions."""
        self._run("ALTER ROLE {} PASSWORD {}", password)
        self.password = password
        self.end_sessions()

    def end_sessions(self) -> None:
        self.access.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", self.name
        )

    def drop(self) -> None:
        self.access.execute(
            sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self.name))
        )
        self.access.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(self.name)))

    def _run(self, statement: str, value: str) -> None:
        self.access.execute(
            sql.SQL(statement).format(sql.Identifier(self.name), sql.Literal(value))
        )
