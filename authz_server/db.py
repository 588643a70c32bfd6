"""The SQLAlchemy object, its naming convention and column types, and the two ways to a session."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import flask_migrate
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
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

from authz_server.look_ups import LookUps
from authz_server.postgresql import bound_waiting
from authz_server.settings import DatabaseSettings
from authz_server.settings_rules import database_file
from authz_server.sqlite import follow_file, make_durable

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
    """The two ways to the database, bound to one engine; nothing is held between requests."""

    def __init__(self, engine: Engine, look_ups: LookUps) -> None:
        """Keep the engine and a twin of it on which every statement stands alone."""
        self.engine = engine
        self.look_ups = look_ups
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")

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


MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_TIMEOUT_MILLISECONDS = 60_000


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """The schema's revision as found (None: no schema) and as this version needs it."""

    current: str | None
    head: str

    @property
    def is_current(self) -> bool:
        """Whether the schema is the one that this version needs."""
        return self.current == self.head


def upgrade_database(url: str) -> None:
    """Bring the schema up to this version; several may try at once, one does it.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer or refuses the change.
    """
    with _schema_application(url).app_context():
        try:
            flask_migrate.upgrade(str(MIGRATIONS))
        finally:
            db.engine.dispose()


def check_database(url: str) -> DatabaseState:
    """Return the schema's revision beside the one needed.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    head = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    if head is None:
        message = "this installation has no migrations"
        raise RuntimeError(message)
    with _schema_application(url).app_context():
        try:
            with db.engine.connect() as connection:
                current = MigrationContext.configure(connection).get_current_revision()
        finally:
            db.engine.dispose()
    return DatabaseState(current, head)


def _schema_application(url: str) -> Flask:
    app = Flask("authz_server.schema", static_folder=None, template_folder=None)
    attach_database(
        app,
        DatabaseSettings(
            url=url, statement_timeout_milliseconds=_MIGRATION_TIMEOUT_MILLISECONDS, pool_size=1
        ),
    )
    flask_migrate.Migrate(app, db, directory=str(MIGRATIONS), compare_type=True)
    return app


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


def attach_database(app: Flask, settings: DatabaseSettings) -> Database:
    """Give ``app`` its database and return the ways to it."""
    app.config["SQLALCHEMY_DATABASE_URI"] = settings.url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = _engine_options(settings)
    db.init_app(app)
    with app.app_context():
        engine = db.engine
    path = database_file(engine.url)
    if engine.dialect.name == "sqlite":
        make_durable(engine, settings.statement_timeout_milliseconds)
        if path:
            follow_file(engine, path)
    else:
        bound_waiting(engine, settings.statement_timeout_milliseconds / 1_000)
    look_ups = LookUps(engine, settings.pool_size, settings.pool_timeout_milliseconds / 1_000, path)
    return Database(engine, look_ups)


def _engine_options(settings: DatabaseSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "pool_size": settings.pool_size,
        "max_overflow": 0,
        "pool_timeout": settings.pool_timeout_milliseconds / 1_000,
    }
    if settings.url.startswith("sqlite"):
        # A request that finds the file locked waits as long as a statement may take elsewhere.
        options["connect_args"] = {"timeout": settings.statement_timeout_milliseconds / 1_000}
        return options
    statement_timeout = settings.statement_timeout_milliseconds
    options["pool_pre_ping"] = True
    options["connect_args"] = {
        "connect_timeout": settings.connect_timeout_seconds,
        "options": f"-c statement_timeout={statement_timeout} -c lock_timeout={statement_timeout}",
        # A peer that vanished without a word is noticed within the time a statement may take.
        "tcp_user_timeout": statement_timeout,
        "keepalives_idle": 5,
        "keepalives_interval": 1,
        "keepalives_count": 3,
    }
    return options
