"""Run the migrations on the application's engine, in one transaction, one migrator at a time."""

from alembic import context
from flask import current_app
from sqlalchemy import text

# The advisory lock of a running migration: arbitrary, but the same in every process.
MIGRATION_LOCK = 7_021_936_114

database = current_app.extensions["migrate"].db
engine = database.engine

# On SQLite the beginning takes the write lock; Alembic would read the revision before.
with engine.begin() as connection:
    context.configure(
        connection=connection,
        target_metadata=database.metadata,
        compare_type=True,
        render_as_batch=engine.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        context.run_migrations()
