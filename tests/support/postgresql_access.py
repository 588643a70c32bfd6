"""Make, copy and drop databases at a running PostgreSQL server."""

import secrets
from typing import Any

import psycopg
from psycopg import sql

ROLE = "authz"


class PostgresAccess:
    """A PostgreSQL server on a port of 127.0.0.1, seen by its superuser."""

    def __init__(self, *, port: int, password: str) -> None:
        self.port = port
        self.password = password

    def url(self, database: str = "postgres") -> str:
        """Return the SQLAlchemy URL of `database` on this server."""
        return f"postgresql+psycopg://{ROLE}:{self.password}@127.0.0.1:{self.port}/{database}"

    def cut_connections(self) -> None:
        """End every client connection from the server's side, as an operator would."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )

    def create_database(self, template: str | None = None) -> str:
        """Make an empty database, or a copy of the database named `template`; return its URL."""
        name = f"test_{secrets.token_hex(8)}"
        self.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template or "template1")
            )
        )
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop the database of that URL, ending the connections that it still has."""
        name = sql.Identifier(database_name(url))
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def close_database(self, url: str) -> None:
        """Let nobody connect to that database any more, so that it can serve as template."""
        name = database_name(url)
        self.execute(
            sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name))
        )
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        self.execute(ended, name)

    def execute(self, statement: Any, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement as the superuser, outside a transaction; return its rows, if any."""
        with psycopg.connect(self._connection_string(), autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def _connection_string(self) -> str:
        return psycopg.conninfo.make_conninfo(
            host="127.0.0.1",
            port=self.port,
            user=ROLE,
            password=self.password,
            dbname="postgres",
            connect_timeout=10,
        )


def database_name(url: str) -> str:
    """Return the name of the database in a SQLAlchemy URL."""
    return url.rpartition("/")[2].partition("?")[0]
