"""Log lines of requests that the database failed."""

import logging

import psycopg
import pytest
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from authz_server.endpoints import errors
from authz_server.endpoints.errors import as_refusal


@pytest.fixture
def clock(monkeypatch):
    """A clock in seconds, as a list of one."""
    now = [1_000.0]
    monkeypatch.setattr(errors, "monotonic", lambda: now[0])
    monkeypatch.setattr(errors, "_database_log", errors.DatabaseLog())
    return now


def test_an_outage_is_logged_at_once_and_then_once_a_second_with_a_count(clock, caplog):
    for _ in range(1_000):
        assert as_refusal(PoolTimeoutError("none free")).reason == "temporarily_unavailable"
    clock[0] += 1.0
    as_refusal(PoolTimeoutError("none free"))
    assert [(each.levelno, each.message) for each in caplog.records] == [
        (logging.ERROR, "the database failed a request: TimeoutError"),
        (logging.ERROR, "the database failed 999 more requests: TimeoutError"),
        (logging.ERROR, "the database failed a request: TimeoutError"),
    ]


def test_a_missing_right_is_named_and_the_values_of_a_request_are_not(clock, caplog):
    del clock
    permission = psycopg.errors.InsufficientPrivilege("permission denied for table revoked_token")
    value = psycopg.errors.UniqueViolation("Key (jti)=(a value) already exists")
    for fault in (ProgrammingError("", None, permission), IntegrityError("", None, value)):
        assert as_refusal(fault).error == "temporarily_unavailable"
    assert "permission denied for table revoked_token (SQLSTATE 42501)" in caplog.text
    assert "a value" not in caplog.text
