"""Formats errors as one sentence with the cause and the remedy."""

import os

import psycopg
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from authz_server.database.errors import describe_failure, find_sentence
from authz_server.errors import OAuthError, OperatorError
from authz_server.settings import SettingsError
from keys.errors import KeysError

_DATABASE = "See that it runs and that database.url is right; `authz-server db check` tries it."
_FILE = "See that the file is this server's database, and that the disk has space."


def format_error(error: Exception) -> str:
    """Return the cause and the remedy of an error in one line, without secrets."""
    match error:
        case OperatorError() | SettingsError() | KeysError():
            sentence = str(error)
        case OAuthError():
            sentence = f"{error.description} {error.detail}".strip()
        case PoolTimeoutError():
            sentence = f"The database gave no connection in time. {_DATABASE}"
        case DBAPIError() | psycopg.Error():
            sentence = _explain_driver(error)
        case ArgumentError() | SQLAlchemyError():
            sentence = f"The database cannot be used: {error}. {_DATABASE}"
        case UnicodeError():
            sentence = "A text that was given is not UTF-8: nothing was changed."
        case OSError():
            where = f" ({os.fspath(error.filename)})" if error.filename else ""
            sentence = f"{error.strerror or error}{where}."
        case _:
            sentence = (
                f"Something unexpected happened ({type(error).__name__}: {error}). "
                "Run the command again with --debug and report what it prints."
            )
    return " ".join(sentence.split())


def _explain_driver(error: DBAPIError | psycopg.Error) -> str:
    """Return the report of the driver, without statement and parameters."""
    if sentence := find_sentence(error):
        return sentence
    reported = describe_failure(error).rstrip(".")
    if _lacks_schema(reported):
        return f"The schema is not this version's ({reported}): run `authz-server db check`."
    files = ", ".join(getattr(getattr(error, "orig", None), "__notes__", ())[:1])
    if files:
        return f"SQLite reports for {files}: {reported}. {_FILE}"
    return f"The database refused or did not answer: {reported}. {_DATABASE}"


def _lacks_schema(reported: str) -> bool:
    # The messages of SQLite and the SQLSTATEs of PostgreSQL for missing tables and columns.
    return any(sign in reported for sign in ("no such table", "no such column", "42P01", "42703"))
