"""Runs the migrations on the application's engine, one migrator at a time, in one transaction."""

from alembic import context
from flask import current_app
from sqlalchemy import text

# Arbitrary, but the same in every process: the lock that a migrator holds while it works.
MIGRATION_LOCK = 7_021_936_114

database = current_app.extensions["migrate"].db
engine = database.engine

with engine.connect() as connection:
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
