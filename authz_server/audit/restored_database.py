"""Detect a database that was restored from an older copy, by later changes in the audit file.

Revocations made after the copy are missing in it, so that revoked tokens are valid again. Every
change in the file since the last ``revoke --before`` of all tokens must be in the table of audit
records.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from authz_server.audit.change_events import CHANGE_EVENTS
from authz_server.audit.sink import AuditRecord
from authz_server.database.orm import Database
from authz_server.errors import OperatorError
from authz_server.settings import STREAMS

#: How far back the file is read. A busy server writes a megabyte of tokens in a few seconds.
_TAIL_BYTES = 64 * 1_048_576
_BLOCK_BYTES = 1_048_576
#: The number of latest changes in the file to look up, and of those in one query.
_CHANGES = 1_000
_CHANGES_AT_ONCE = 200
#: Longest delay between a row and its record in the file.
_DELAY = timedelta(minutes=10)
#: The row of a machine whose clock is off is dated otherwise than its record, by up to this time.
_CLOCKS_DIFFER = timedelta(days=1)
_FIRST_ID = 1
#: Records of changes have it; those of tokens, which are most of a file, do not.
_OF_CHANGES = b'"actor"'
# The field with the subject of the row, whose action is the record's, or the event itself.
_SUBJECT_OF_ACTION = {
    "client.changed": "client_id",
    "operator.changed": "operator",
    "registration.changed": "subject",
    "scope.changed": "scope",
}
_SUBJECT_OF_EVENT = {
    "token.revoked": "jti",
    "declaration.applied": "digest",
    **dict.fromkeys(CHANGE_EVENTS, "change"),
}
_WITH_KIND = ("cut_off.recorded", "stop.set", "stop.lifted")


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """A change in the audit file; its row has the same action and subject.

    Attributes:
        at: the time of the record.
        action: the change's name, for example ``client.disabled``.
        subject: the id of the changed object.
    """

    at: datetime
    action: str
    subject: str


class RestoredDatabaseError(OperatorError):
    """The database lacks changes of the audit file; the message names one and the remedy."""


def find_missing_change(session: Session, audit_file: str) -> RecordedChange | None:
    """Return the latest change in the file that the database lacks, or None.

    Two kinds of changes are skipped: those before the oldest row, which the database never had
    or which were purged, and those before the last cut-off of all tokens.

    Args:
        session: for reading.
        audit_file: the path of the file; a missing file has no changes.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    oldest = session.scalar(select(func.min(AuditRecord.at)))
    if oldest is None:
        return None
    if session.scalar(select(func.min(AuditRecord.id))) != _FIRST_ID:
        # Rows were deleted; the latest of them may have been recorded after the oldest one left.
        oldest += _DELAY
    cut_off = select(func.max(AuditRecord.at)).where(
        AuditRecord.action == "cut_off.recorded", AuditRecord.subject == "all:"
    )
    since = max(oldest, session.scalar(cut_off) or oldest)
    latest = islice(_latest_changes(Path(audit_file)), _CHANGES)
    comparable = [change for change in latest if change.at >= oldest]
    return next(_missing(session, comparable, since), None)


def require_not_restored(session: Session, audit_destination: str) -> None:
    """Raise if the database lacks a change of the audit file.

    Args:
        session: for reading.
        audit_destination: a path, ``stdout`` or ``stderr``; a stream is not checked.

    Raises:
        RestoredDatabaseError: a change is missing.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    if audit_destination in STREAMS:
        return
    missing = find_missing_change(session, audit_destination)
    if missing is not None:
        raise RestoredDatabaseError(
            f"The database is older than the audit file: {missing.action} of {missing.subject} at "
            f"{missing.at:%Y-%m-%dT%H:%M:%SZ} is not in it. Tokens that were revoked after the "
            "copy are valid again. Run `authz-server revoke --before now`, and compare clients "
            "and secrets with the file."
        )


class RestoreReadiness:
    """Checks for a restored database at intervals, for readiness.

    Args:
        database: the database to check.
        audit_destination: as for :func:`require_not_restored`.
        monotonic: returns monotonic seconds.
    """

    GOOD_SECONDS = 30.0
    BAD_SECONDS = 2.0

    def __init__(
        self,
        database: Database,
        audit_destination: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._audit_destination = audit_destination
        self._monotonic = monotonic
        self._until = 0.0
        self._fault: RestoredDatabaseError | None = None

    def require(self) -> None:
        """Raise if the last check found a missing change.

        Another check detects a database that does not answer.

        Raises:
            RestoredDatabaseError: a change is missing.
        """
        if self._monotonic() >= self._until:
            self._check()
        if self._fault is not None:
            raise self._fault

    def _check(self) -> None:
        self._fault = None
        try:
            with self._database.reading() as session:
                require_not_restored(session, self._audit_destination)
        except RestoredDatabaseError as fault:
            self._fault = fault
        except SQLAlchemyError:
            return
        seconds = self.GOOD_SECONDS if self._fault is None else self.BAD_SECONDS
        self._until = self._monotonic() + seconds


def _latest_changes(path: Path) -> Iterator[RecordedChange]:
    """Yield the changes at the end of the file, latest first; of a pipe or a device none."""
    if not path.is_file():  # opening a pipe waits for a writer
        return
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            first, rest = max(0, end - _TAIL_BYTES), b""
            while end > first:
                begin = max(first, end - _BLOCK_BYTES)
                file.seek(begin)
                block = file.read(end - begin) + rest
                end = begin
                # The first line may begin in the block before.
                rest, _, lines = block.partition(b"\n") if begin else (b"", b"", block)
                if _OF_CHANGES in lines:
                    yield from filter(None, map(_read_change, reversed(lines.split(b"\n"))))
    except OSError:
        return


def _read_change(line: bytes) -> RecordedChange | None:
    if _OF_CHANGES not in line:
        return None
    try:
        record = json.loads(line)
        at = datetime.fromisoformat(record["time"]).astimezone(UTC)
        found = _row_of(record)
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    if found is None or not all(isinstance(each, str) for each in found):
        return None
    return RecordedChange(at, *found)


def _row_of(record: dict[str, Any]) -> tuple[str, str] | None:
    """Return action and subject of the row for a record; None if it has no row."""
    event = record["event"]
    if event in _SUBJECT_OF_ACTION:
        return record["action"], record[_SUBJECT_OF_ACTION[event]]
    if event in _SUBJECT_OF_EVENT:
        return event, record[_SUBJECT_OF_EVENT[event]]
    if event in _WITH_KIND:
        return event, f"{record['kind']}:{record['subject']}"
    if event == "key.changed" and record["event_hash"]:
        return record["action"], record["kid"] or record["ring"]
    return None


def _missing(
    session: Session, comparable: Sequence[RecordedChange], since: datetime
) -> Iterator[RecordedChange]:
    """Yield the changes after ``since`` without a row, in their order."""
    changes = [change for change in comparable if change.at > since]
    for begin in range(0, len(changes), _CHANGES_AT_ONCE):
        part = changes[begin : begin + _CHANGES_AT_ONCE]
        rows = _rows_near(session, part)
        for change in part:
            near = rows.get(_key(change), ())
            if any(abs(at - change.at) <= _DELAY for at in near):
                continue
            if not _is_dated_otherwise(session, change, comparable):
                yield change


def _rows_near(
    session: Session, changes: Sequence[RecordedChange]
) -> dict[tuple[str, str], list[datetime]]:
    """Return the times of the rows about the subjects of the changes, by action and subject."""
    times = [change.at for change in changes]
    statement = select(AuditRecord.action, AuditRecord.subject, AuditRecord.at).where(
        AuditRecord.subject.in_({change.subject for change in changes}),
        AuditRecord.at.between(min(times) - _DELAY, max(times) + _DELAY),
    )
    found: dict[tuple[str, str], list[datetime]] = {}
    for action, subject, at in session.execute(statement):
        found.setdefault((action, subject), []).append(at)
    return found


def _is_dated_otherwise(
    session: Session, change: RecordedChange, comparable: Sequence[RecordedChange]
) -> bool:
    """Return whether there are as many rows as records like this one, at other times.

    A row has the database's time, a record the machine's.
    """
    like_it = [each for each in comparable if (each.action, each.subject) == _key(change)]
    statement = select(func.count()).where(
        AuditRecord.action == change.action, AuditRecord.subject == change.subject
    )
    # A token is revoked only once, so its row counts at any time.
    if change.action == "token.revoked":
        return bool(session.scalar(statement))
    earliest = min(each.at for each in comparable) - _CLOCKS_DIFFER
    found = session.scalar(statement.where(AuditRecord.at >= earliest))
    return (found or 0) >= len(like_it)


def _key(change: RecordedChange) -> tuple[str, str]:
    return change.action, change.subject
