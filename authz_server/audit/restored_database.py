"""Detect a database that was restored from an older copy, by later changes outside of it.

Revocations made after the copy are missing in it, so that revoked tokens are valid again. Every
change in the audit file since the last ``revoke --before`` of all tokens must be in the table of
audit records, and so must the change in the file with the latest one.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from authz_server.audit.change_events import CHANGE_EVENTS
from authz_server.audit.latest_change import LatestChangeFile, open_latest_change
from authz_server.audit.models import AuditRecord
from authz_server.audit.seen_changes import SeenChange, SeenChanges, find_cut_off
from authz_server.audit.stored_rows import load, read_first, read_records
from authz_server.database.clock import read_database_time
from authz_server.database.orm import Database
from authz_server.errors import OperatorError
from authz_server.settings import STREAMS, AuditSettings

#: How far back the file is read. A busy server writes a megabyte of tokens in a few seconds.
_TAIL_BYTES = 64 * 1_048_576
_BLOCK_BYTES = 1_048_576
_MAXIMUM_LINE_BYTES = 1_048_576
#: The number of latest changes in the file to look up, and of subjects in one query.
_CHANGES = 1_000
_SUBJECTS_AT_ONCE = 200
#: Longest delay between a row and its record in the file.
_DELAY = timedelta(minutes=10)
#: The row of a machine whose clock is off is dated otherwise than its record, by up to this time.
_CLOCKS_DIFFER = timedelta(days=1)
#: Differences this near to each other are of the same clocks.
_NEAR = timedelta(minutes=1)
#: Changes that are made once, so that a record and a row are of the same one.
_MADE_ONCE = ("token.revoked", "client.created", "registration.token_created", "change.requested")
_FIRST_ID = 1
#: Records of changes have it; those of tokens, which are most of a file, do not.
_OF_CHANGES = b'"actor"'
#: Those of exchanged tokens have another of that name.
_OF_TOKENS = b'"event":"token.exchanged"'
_REMEDY = (
    "Tokens that were revoked after the copy are valid again. Run `authz-server revoke --before "
    "now`, and compare clients and secrets with the"
)
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
#: The times of rows by action and subject.
_Rows = dict[tuple[str, str], list[datetime]]


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
    """The database lacks changes that it had; the message names one and the remedy."""


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
    first = read_first(session, select(AuditRecord.at).order_by(AuditRecord.at))
    if first is None:
        return None
    oldest: datetime = first.at
    if session.scalar(select(func.min(AuditRecord.id))) != _FIRST_ID:
        # Rows were deleted; the latest of them may have been recorded after the oldest one left.
        oldest += _CLOCKS_DIFFER + _DELAY
    since = max(oldest, find_cut_off(session) or oldest)
    latest = islice(_latest_changes(Path(audit_file)), _CHANGES)
    changes = [change for change in latest if change.at >= oldest]
    if not changes:
        return None
    missing = _missing(session, changes, since)
    return next((each for each in missing if not _is_revoked(session, each)), None)


def require_not_restored(
    session: Session, audit: AuditSettings, latest_change: LatestChangeFile | None = None
) -> None:
    """Raise if the database lacks a change of the audit file, or the latest one that was kept.

    Args:
        session: for reading.
        audit: names the destination of records, of which a stream is not checked, and the file
            with the latest change.
        latest_change: this file, if it is open already.

    Raises:
        RestoredDatabaseError: a change is missing.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    if audit.destination not in STREAMS:
        _require_recorded(session, audit.destination)
    latest_change = latest_change or open_latest_change(audit)
    lost = latest_change.find_lost(session) if latest_change is not None else None
    if lost is not None:
        raise _lost_error(lost)


def keep_latest_change(database: Database, latest_change: LatestChangeFile) -> None:
    """Write the latest change to its file, unless the database lacks the one that is in it.

    Raises:
        RestoredDatabaseError: the database lacks it.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    with database.reading() as session:
        lost = latest_change.keep(session)
    if lost is not None:
        raise _lost_error(lost)


def _require_recorded(session: Session, audit_file: str) -> None:
    missing = find_missing_change(session, audit_file)
    if missing is not None:
        raise RestoredDatabaseError(
            f"The database is older than the audit file: {missing.action} of {missing.subject} at "
            f"{missing.at:%Y-%m-%dT%H:%M:%SZ} is not in it. {_REMEDY} file."
        )


class RestoreReadiness:
    """Checks for a restored database at intervals, for readiness.

    A probe reads the files if the last reading is GOOD_SECONDS old, or BAD_SECONDS while a change
    is missing, and looks for the latest change, which an earlier probe saw, every BAD_SECONDS.

    Args:
        database: the database to check.
        audit: as for :func:`require_not_restored`.
        monotonic: returns monotonic seconds.
        seen: the changes that this process has seen; None: none yet.
    """

    GOOD_SECONDS = 30.0
    BAD_SECONDS = 2.0

    def __init__(
        self,
        database: Database,
        audit: AuditSettings,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        seen: SeenChanges | None = None,
    ) -> None:
        self._database = database
        self._audit = audit
        self._latest_change = open_latest_change(audit)
        self._monotonic = monotonic
        self._seen = seen or SeenChanges()
        self._until = self._file_until = 0.0
        self._fault: RestoredDatabaseError | None = None
        self._file_fault: RestoredDatabaseError | None = None
        self._lock = threading.Lock()
        self._looks = 0

    def require(self) -> None:
        """Raise if the last check found a missing change.

        Another check detects a database that does not answer.

        Raises:
            RestoredDatabaseError: a change is missing.
        """
        looks = self._looks
        if self._monotonic() >= self._until:
            # One probe reads the file, and those that wait meanwhile have its result.
            with self._lock:
                if self._looks == looks:
                    self._check()
                    self._looks += 1
        if self._fault is not None:
            raise self._fault

    def _check(self) -> None:
        try:
            with self._database.reading() as session:
                lost = self._seen.find_lost(session)
                if self._monotonic() >= self._file_until:
                    self._check_file(session)
        except SQLAlchemyError:
            return
        self._fault = self._file_fault or (_lost_error(lost) if lost else None)
        # Last, so that a probe that begins meanwhile waits for this result.
        self._until = self._monotonic() + self.BAD_SECONDS

    def _check_file(self, session: Session) -> None:
        self._file_fault = None
        try:
            require_not_restored(session, self._audit, self._latest_change)
        except RestoredDatabaseError as fault:
            self._file_fault = fault
        seconds = self.GOOD_SECONDS if self._file_fault is None else self.BAD_SECONDS
        self._file_until = self._monotonic() + seconds


def _lost_error(lost: SeenChange) -> RestoredDatabaseError:
    return RestoredDatabaseError(
        f"The database lost {lost.action} of {lost.subject} at {lost.at:%Y-%m-%dT%H:%M:%SZ}: an "
        f"older copy was restored, or a fail-over lost changes. {_REMEDY} audit records."
    )


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
                # A longer line is of no change, and would be copied with each block.
                known = rest if len(rest) <= _MAXIMUM_LINE_BYTES else b""
                block = file.read(end - begin) + known
                end = begin
                # The first line may begin in the block before.
                rest, _, lines = block.partition(b"\n") if begin else (b"", b"", block)
                if _OF_CHANGES in lines:
                    yield from filter(None, map(_read_change, reversed(lines.split(b"\n"))))
    except OSError:
        return


def _read_change(line: bytes) -> RecordedChange | None:
    if _OF_CHANGES not in line or _OF_TOKENS in line:
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


def _rows_of(session: Session, changes: Sequence[RecordedChange]) -> _Rows:
    """Return the times of the rows about the subjects of the changes, the oldest first."""
    times = [change.at for change in changes]
    margin = _CLOCKS_DIFFER + _DELAY
    subjects = sorted({change.subject for change in changes})
    found: _Rows = {}
    for begin in range(0, len(subjects), _SUBJECTS_AT_ONCE):
        statement = (
            select(AuditRecord)
            .where(
                AuditRecord.subject.in_(subjects[begin : begin + _SUBJECTS_AT_ONCE]),
                AuditRecord.at.between(min(times) - margin, max(times) + margin),
            )
            .order_by(AuditRecord.at)
        )
        for action, subject, at in _read_rows(session, statement):
            found.setdefault((action, subject), []).append(at)
    return found


def _read_rows(session: Session, statement: Select[Any]) -> list[Any]:
    columns = (AuditRecord.action, AuditRecord.subject, AuditRecord.at)
    rows = load(lambda: list(session.execute(statement.with_only_columns(*columns))))
    if rows is None:
        return [(row.action, row.subject, row.at) for row in read_records(session, statement)]
    return rows


def _missing(
    session: Session, changes: Sequence[RecordedChange], since: datetime
) -> Iterator[RecordedChange]:
    """Yield the changes after ``since`` without a row of their own, the latest first.

    A row has the database's time, a record the machine's, whose clock may have been put right
    between the records before and after a change.
    """
    rows = _rows_of(session, changes)
    now = datetime.now(UTC)
    present = now - read_database_time(session)
    latest = max(now, *(change.at for change in changes))
    found = _pair(changes, rows, _known_offsets(present + (latest - now), changes, rows))
    # The offset of the nearest change before each one, and of the nearest after it.
    earlier: list[timedelta | None] = []
    for own in reversed(found):
        earlier.append(own if own is not None or not earlier else earlier[-1])
    later = present
    for change, own, before in zip(changes, found, reversed(earlier), strict=True):
        if own is not None:
            later = own
        elif change.at - min(later, later if before is None else before) > since:
            yield change


def _known_offsets(
    present: timedelta, changes: Sequence[RecordedChange], rows: _Rows
) -> list[timedelta]:
    """Return how far the machine's clock was ahead of the database's; 0 is the first.

    It is known from the clocks, and from changes that are made once. One that is made again may
    have the row of another time, and does not count.
    """
    known = [timedelta(0)]
    once = (change for change in changes if change.action in _MADE_ONCE)
    seen = (change.at - at for change in once for at in rows.get(_key(change), ()))
    for offset in (present, *seen):
        if abs(offset) <= _CLOCKS_DIFFER and all(abs(offset - each) > _NEAR for each in known):
            known.append(offset)
    return known


def _pair(
    changes: Sequence[RecordedChange], rows: _Rows, offsets: Sequence[timedelta]
) -> list[timedelta | None]:
    """Return the offset of each change from a row of its own; None: it has none."""
    free = {key: list(times) for key, times in rows.items()}
    found: list[timedelta | None] = [None] * len(changes)
    for index, change in sorted(enumerate(changes), key=lambda each: each[1].at):
        times = free.get(_key(change), [])
        for at in times:
            offset = change.at - at
            if any(abs(offset - each) <= _DELAY for each in offsets):
                found[index] = offset
                times.remove(at)
                break
    return found


def _is_revoked(session: Session, change: RecordedChange) -> bool:
    """Return whether it is of a token with a row: it is revoked only once, at any time."""
    if change.action != "token.revoked":
        return False
    statement = select(func.count()).where(
        AuditRecord.action == change.action, AuditRecord.subject == change.subject
    )
    return bool(session.scalar(statement))


def _key(change: RecordedChange) -> tuple[str, str]:
    return change.action, change.subject
