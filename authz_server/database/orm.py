"""The SQLAlchemy object, its naming convention and column types, and the two ways to a session."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any

from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Engine,
    Integer,
    MetaData,
)
from sqlalchemy.orm import DeclarativeBase, Session, registry
from sqlalchemy.types import TypeDecorator

from authz_server.database.connector import PostgresConnector
from authz_server.database.prepared_queries import LookUp, LookUps
from authz_server.database.primary import follow_primary
from authz_server.database.sqlite import follow_file, make_durable
from authz_server.settings import DatabaseSettings

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time: timezone-aware UTC in Python, the same instant in every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time (ValueError); store UTC."""
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            message = "a time without a zone was given"
            raise ValueError(message)
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return UTC; SQLite hands back naive values that were stored as UTC."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


#: A 64-bit key that SQLite also counts up by itself.
BigIntegerKey = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """Every table's base: one naming convention, lists kept as JSON, times in UTC."""

    registry = registry(
        metadata=MetaData(naming_convention=NAMING_CONVENTION),
        type_annotation_map={
            datetime: UtcDateTime(),
            list[str]: JSON(),
            dict[str, Any]: JSON(),
        },
    )


db = SQLAlchemy(model_class=Base)

#: The name under which an application keeps what is called with the session of each commit.
AFTER_COMMIT = "authz_server.after_commit"

#: Opens a session of its own: committed when the block ends, rolled back when it raises.
Transaction = Callable[[], AbstractContextManager[Session]]


class Database:
    """The two ways to the database, bound to one engine; nothing is held between requests.

    Attributes:
        connector: opens the connections to PostgreSQL; None beside SQLite.
    """

    def __init__(
        self, engine: Engine, look_ups: LookUps, connector: PostgresConnector | None = None
    ) -> None:
        """Keep the engine and a twin of it on which every statement stands alone."""
        self.engine = engine
        self.look_ups = look_ups
        self.connector = connector
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def fetch_one(self, question: str, value: str | bytes) -> tuple[Any, ...] | None:
        """Return the first row of a prepared question; None where there is none.

        Args:
            question: a SELECT with one ``?``, the same text each time.
            value: what stands for it.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        return await LookUp(self.look_ups, question, value)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Yield a session whose changes are durable when the block has ended without raising."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session for reading: each statement is its own transaction."""
        with Session(self._single) as session:
            yield session

    def close(self) -> None:
        """Close every connection that is idle; the next use opens new ones."""
        self.look_ups.close()
        self.engine.dispose()


def drop_all_connections(database: Database) -> int:
    """End every connection to PostgreSQL, idle or in use, prepared questions included.

    The next use opens new ones, which lead to the primary or fail. A driver that opens connections
    by itself takes part by ``database.connector.opened.call_when_dropped``.

    Returns:
        How many there were; 0 for SQLite, whose connections follow the file.
    """
    return 0 if database.connector is None else database.connector.opened.drop_all()


@contextmanager
def transaction() -> Iterator[Session]:
    """Yield a session on the application's database, committed at the end; needs its context.

    What the application wants to hear of a committed change, it hears (:data:`AFTER_COMMIT`).
    """
    with Session(db.engine, expire_on_commit=False) as session, session.begin():
        yield session
    after_commit: Callable[[Session], None] | None = current_app.extensions.get(AFTER_COMMIT)
    if after_commit is not None:
        after_commit(session)


def attach_database(
    app: Flask, settings: DatabaseSettings, *, may_create: bool = False
) -> Database:
    """Give ``app`` its database and return the ways to it.

    Args:
        app: the application.
        settings: checked already.
        may_create: whether an SQLite file that is missing is made.
    """
    parts = settings.parts
    connector = None if parts.is_sqlite else PostgresConnector(settings)
    app.config["SQLALCHEMY_DATABASE_URI"] = settings.url if parts.is_sqlite else _POSTGRESQL
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = _engine_options(settings, connector)
    db.init_app(app)
    with app.app_context():
        engine = db.engine
    if connector is not None:
        follow_primary(engine, connector.opened, connector.look)
    else:
        make_durable(engine, settings.statement_timeout_milliseconds)
        if parts.file:
            follow_file(engine, parts.file, may_create=may_create)
    wait_seconds = settings.pool_timeout_milliseconds / 1_000
    look_ups = LookUps(engine, settings.pool_size, wait_seconds, parts.file)
    return Database(engine, look_ups, connector)


#: Beyond the pool: the change feed reads the keys while it holds a connection, and background work
#: must not wait for requests, nor they for it.
_BACKGROUND_CONNECTIONS = 2
# The dialect alone: where the server is, the connector knows.
_POSTGRESQL = "postgresql+psycopg://"


def _engine_options(
    settings: DatabaseSettings, connector: PostgresConnector | None
) -> dict[str, Any]:
    options: dict[str, Any] = {
        "pool_size": settings.pool_size,
        "max_overflow": _BACKGROUND_CONNECTIONS,
        "pool_timeout": settings.pool_timeout_milliseconds / 1_000,
    }
    if connector is not None:
        return options | {"pool_pre_ping": True, "creator": connector.open}
    # A request that finds the file locked waits as long as a statement may take elsewhere.
    return options | {"connect_args": {"timeout": settings.statement_timeout_milliseconds / 1_000}}
