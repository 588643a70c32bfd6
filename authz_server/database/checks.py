"""The checks of ``db check``: schema, session and file."""

from dataclasses import dataclass

from authz_server.database.connector import PostgresConnector
from authz_server.database.schema import SchemaError, SchemaState, read_schema
from authz_server.database.session_check import require_session
from authz_server.database.sqlite import open_to_others
from authz_server.database.tables import require_tables
from authz_server.settings.database import DatabaseSettings


@dataclass(frozen=True, slots=True)
class DatabaseReport:
    """The result of ``db check``.

    Attributes:
        schema: the state of the schema.
        problems: reasons why a server cannot use the database, as sentences.
        warnings: further findings, as sentences.
    """

    schema: SchemaState
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def check_database(settings: DatabaseSettings) -> DatabaseReport:
    """Check the database as a server would use it.

    Raises:
        DatabaseUnfitError: sessions are not kept, so that nothing else can be checked.
        psycopg.Error: the database cannot answer.
        sqlalchemy.exc.SQLAlchemyError: likewise.
    """
    if settings.parts.is_sqlite:
        warnings = _file_warnings(settings.parts.file)
    else:
        connector = PostgresConnector(settings)
        require_session(connector.open)
        warnings = _server_warnings(connector)
    schema = read_schema(settings)
    problems = [schema.explain() or _find_unreadable(settings)]
    return DatabaseReport(schema, tuple(filter(None, problems)), tuple(filter(None, warnings)))


def _find_unreadable(settings: DatabaseSettings) -> str:
    try:
        require_tables(settings)
    except SchemaError as error:
        return str(error)
    return ""


def _server_warnings(connector: PostgresConnector) -> list[str]:
    with connector.open() as connection:
        found = connection.execute("SELECT current_setting('fsync')").fetchone()
    if found == ("on",):
        return []
    return ["fsync is off at the database server: a crash of its machine may lose revocations."]


def _file_warnings(file: str) -> list[str]:
    mode = open_to_others(file) if file else ""
    if not mode:
        return []
    problem = f"The database file {file} is open to others than its owner (mode {mode}): run "
    return [f"{problem}chmod 600 {file}"]
