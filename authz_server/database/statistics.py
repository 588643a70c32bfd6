"""Statistics by which PostgreSQL plans its queries.

Its autovacuum gathers them within minutes after many rows were written; until then it plans lists
as if there were few clients and records.
"""

import logging

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from authz_server.database.errors import describe_failure

logger = logging.getLogger(__name__)

#: The tables that lists of clients and of audit records read.
_TABLES = (
    "audit_name",
    "audit_record",
    "client",
    "client_grant",
    "client_text",
    "client_secret",
    "scope_use",
)
#: The number of changed entries from which statistics are gathered at once.
MANY_CHANGES = 500
#: The key of the information of a session by which many entries were changed.
MANY = "many_changes"


def note_changes(session: Session, number: int) -> None:
    """Note how many entries a transaction changed; what few change is left to the autovacuum."""
    if number >= MANY_CHANGES:
        session.info[MANY] = True


def gather_statistics(engine: Engine) -> None:
    """Gather the statistics; nothing but a warning in the log comes of a failure.

    Each table is a transaction of its own, which holds up neither reading nor writing. PostgreSQL
    leaves out the tables that the role does not own.

    Args:
        engine: that of the database; SQLite plans without statistics.
    """
    if engine.dialect.name != "postgresql":
        return
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for table in _TABLES:
                connection.execute(text(f"ANALYZE {table}"))
    except SQLAlchemyError as error:
        logger.warning(
            "Statistics of the database were not gathered: %s. Lists of clients may take longer "
            "until the autovacuum of PostgreSQL gathers them.",
            describe_failure(error),
        )
