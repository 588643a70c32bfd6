"""SQLAlchemy set-up: base class, naming convention, column types, engine and sessions."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Engine,
    Integer,
    MetaData,
    create_engine,
)
from sqlalchemy.orm import DeclarativeBase, Session, registry
from sqlalchemy.types import TypeDecorator

from authz_server.database.prepared_queries import PreparedQueries, PreparedQuery
from authz_server.database.room import RoomCheck
from authz_server.database.sqlite import follow_file, make_durable
from authz_server.settings.database import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

    from authz_server.database.connector import PostgresConnector

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
        """Convert to UTC; refuse a naive time (ValueError)."""
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            message = "a time without a zone was given"
            raise ValueError(message)
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return UTC; SQLite returns naive values, which were stored as UTC."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


#: A 64-bit key that SQLite increments as well.
BigIntegerKey = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """Base class of all tables: one naming convention, lists as JSON, times in UTC."""

    registry = registry(
        metadata=MetaData(naming_convention=NAMING_CONVENTION),
        type_annotation_map={
            datetime: UtcDateTime(),
            list[str]: JSON(),
            dict[str, Any]: JSON(),
        },
    )


#: Opens a session that commits at the end of the block and rolls back if it raises.
Transaction = Callable[[], AbstractContextManager[Session]]
#: Beyond the pool: the change feed reads the keys while it holds a connection, and background jobs
#: and requests must not wait for each other.
_BACKGROUND_CONNECTIONS = 2
# Only the dialect; the connector knows the address.
_POSTGRESQL = "postgresql+psycopg://"


class Database:
    """Sessions and prepared queries on one engine; nothing is held between requests.

    Attributes:
        connector: opens the connections to PostgreSQL; None for SQLite.
        room: notices a full disk of PostgreSQL; None for SQLite, which is noticed by writing.
    """

    metadata = Base.metadata

    def __init__(
        self,
        engine: Engine,
        settings: DatabaseSettings,
        connector: "PostgresConnector | None" = None,
    ) -> None:
        """Keep the engine, and a copy of it with autocommit."""
        self.engine = engine
        self.connector = connector
        self.room = None if connector is None else RoomCheck(engine)
        #: Called with the session after each commit; must not raise. It may be narrowed still.
        self.on_commit: Callable[[Session], None] | None = None
        self._settings = settings
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")

    @cached_property
    def prepared_queries(self) -> PreparedQueries:
        """The prepared queries; the first query opens their connections."""
        settings = self._settings
        wait_seconds = settings.pool_timeout_milliseconds / 1_000
        return PreparedQueries(self.engine, settings.pool_size, wait_seconds, settings.parts.file)

    async def fetch_one(self, query: str, value: str | bytes) -> tuple[Any, ...] | None:
        """Return the first row of a prepared query; None if there is none.

        Args:
            query: a SELECT with one ``?``, the same text each time.
            value: the value of the parameter.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        return await PreparedQuery(self.prepared_queries, query, value)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Yield a session whose changes are durable once the block ends without an exception."""
        with Session(self.engine, expire_on_commit=False) as session:
            with session.begin():
                yield session
            if self.on_commit is not None:
                self.on_commit(session)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session for reading: each statement is its own transaction."""
        with Session(self._single) as session:
            yield session

    def close(self) -> None:
        """Close all idle connections; the next use opens new ones."""
        if "prepared_queries" in vars(self):
            self.prepared_queries.close()
        self.engine.dispose()


def open_database(settings: DatabaseSettings, *, may_create: bool = False) -> Database:
    """Return the database of the settings, without connecting yet.

    Args:
        settings: validated settings.
        may_create: whether to create a missing SQLite file.
    """
    if settings.parts.is_sqlite:
        return Database(_sqlite_engine(settings, may_create=may_create), settings)
    # Importing the PostgreSQL driver takes a tenth of a second.
    from authz_server.database.connector import PostgresConnector  # noqa: PLC0415
    from authz_server.database.primary import follow_primary  # noqa: PLC0415

    connector = PostgresConnector(settings)
    options = _pool_options(settings)
    # A type that no column has: otherwise the first connection looks it up in the catalogue.
    options["use_native_hstore"] = False
    engine = create_engine(_POSTGRESQL, **options, pool_pre_ping=True, creator=connector.open)
    follow_primary(engine, connector.opened, connector.look)
    return Database(engine, settings, connector)


def _sqlite_engine(settings: DatabaseSettings, *, may_create: bool) -> Engine:
    # For a locked file, wait as long as a statement may take with PostgreSQL.
    waiting = {"timeout": settings.statement_timeout_milliseconds / 1_000}
    engine = create_engine(settings.url, **_pool_options(settings), connect_args=waiting)
    make_durable(engine, settings.statement_timeout_milliseconds)
    follow_file(engine, settings.parts.file, may_create=may_create)
    return engine


def _pool_options(settings: DatabaseSettings) -> dict[str, Any]:
    return {
        "pool_size": settings.pool_size,
        "max_overflow": _BACKGROUND_CONNECTIONS,
        "pool_timeout": settings.pool_timeout_milliseconds / 1_000,
    }


def insert_into(session: Session, table: type[Base]) -> "postgresql.dml.Insert | sqlite.dml.Insert":
    """Return an INSERT that may have ON CONFLICT, of the session's dialect.

    Only that dialect is imported.
    """
    if session.get_bind().dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_postgresql  # noqa: PLC0415

        return insert_postgresql(table)
    from sqlalchemy.dialects.sqlite import insert as insert_sqlite  # noqa: PLC0415

    return insert_sqlite(table)
