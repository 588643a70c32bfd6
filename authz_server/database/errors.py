"""Errors of the database that an operator has to read."""

import sqlite3

import psycopg
from sqlalchemy.exc import DBAPIError


class DatabaseUnfitError(psycopg.OperationalError):
    """A database that answers but cannot be used until an operator acts.

    The message gives the reason and the remedy, in whole sentences.
    """


class NotPrimaryError(psycopg.OperationalError):
    """A server that is a replica, a former primary or read-only; waiting may help.

    The message gives the reason and the remedy, in whole sentences.
    """


class DatabaseFileError(sqlite3.OperationalError):
    """An SQLite file that cannot be used; the message gives the reason and the remedy."""


def find_unfitness(error: BaseException) -> str | None:
    """Return why the database cannot be used as it is; None where the fault may pass by itself."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(cause) if isinstance(cause, DatabaseUnfitError | DatabaseFileError) else None


def find_sentence(error: BaseException) -> str | None:
    """Return the sentences of an error that was written for operators; None for a driver's own."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, DatabaseUnfitError | NotPrimaryError | DatabaseFileError):
        return str(cause)
    return None


def describe_failure(error: BaseException) -> str:
    """Return what the driver reported, in one line: no statement, no parameters, no password."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = " ".join(str(cause).split()) or type(cause).__name__
    state = getattr(cause, "sqlstate", None)
    return f"{text} (SQLSTATE {state})" if state and state not in text else text
