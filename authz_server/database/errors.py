"""Database errors whose messages are written for operators."""

import sqlite3
import sys
from typing import ClassVar

from sqlalchemy.exc import DBAPIError

from authz_server.errors import OperatorError

# libpq's second line for a refused connection: every report here names a remedy of its own.
_QUESTION = "\tIs the server running"


class DatabaseStateError(OperatorError):
    """Base class of errors about the database that are written for operators.

    The message gives the reason and the remedy as sentences.

    Attributes:
        may_pass: whether waiting may help; if not, an operator must act.
    """

    may_pass: ClassVar[bool] = False


class NoAnswerError(Exception):
    """The server neither answered in time nor closed the connection."""


class DatabaseFileError(DatabaseStateError, sqlite3.OperationalError):
    """An SQLite file cannot be used; the message gives the reason and the remedy."""


def with_driver_error(*errors: type[Exception], name: str = "Error") -> tuple[type[Exception], ...]:
    """Return classes of errors and one of psycopg's, without importing psycopg, which is slow.

    Args:
        errors: other classes.
        name: the name of psycopg's class; left out if psycopg is not imported.
    """
    driver = sys.modules.get("psycopg")
    return errors if driver is None else (*errors, getattr(driver, name))


def find_unfitness(error: BaseException) -> str | None:
    """Return why an operator must act; None if the failure may be temporary."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(cause) if isinstance(cause, DatabaseStateError) and not cause.may_pass else None


def find_sentence(error: BaseException) -> str | None:
    """Return the message of an error written for operators; None for a driver's own error."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(cause) if isinstance(cause, DatabaseStateError) else None


def describe_failure(error: BaseException) -> str:
    """Return the driver's message in one line, without statement, parameters and password."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = [line for line in str(cause).splitlines() if not line.startswith(_QUESTION)]
    text = " ".join(" ".join(lines).split()) or type(cause).__name__
    state = getattr(cause, "sqlstate", None)
    return f"{text} (SQLSTATE {state})" if state and state not in text else text


def is_disconnect(error: BaseException) -> bool:
    """Return whether the connection is lost, so that a retry on another one makes sense."""
    state = getattr(error, "sqlstate", None)
    # PostgreSQL, appendix A: class 08 is a lost connection; 57P01 to 57P03 a server that stops or
    # starts.
    return state is None or state.startswith("08") or state in {"57P01", "57P02", "57P03"}
