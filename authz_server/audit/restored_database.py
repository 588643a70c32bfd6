"""Detect a database that was restored from an older copy, by later changes in the audit file.

Revocations made after the copy are missing in it, so that revoked tokens are valid again. Every
change in the file since the last ``revoke --before`` of all tokens must be in the table of audit
records.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from authz_server.audit.sink import AuditRecord
from authz_server.database.orm import Database
from authz_server.errors import OperatorError
from authz_server.settings import STREAMS

_TAIL_BYTES = 1_048_576
#: The number of latest changes in the file to look up.
_CHANGES = 50
#: Longest delay between a row and its record in the file.
_DELAY = timedelta(minutes=10)
_FIRST_ID = 1


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
    for number, change in enumerate(_latest_changes(Path(audit_file))):
        if change.at <= since or number >= _CHANGES:
            break
        if not _has_row(session, change):
            return change
    return None


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
    """Yield the changes at the end of the file, latest first."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).split(b"\n")
    except OSError:
        return
    # The first line may be incomplete.
    for line in reversed(lines[1:] if size > _TAIL_BYTES else lines):
        change = _read_change(line)
        if change is not None:
            yield change


def _read_change(line: bytes) -> RecordedChange | None:
    if b'"actor"' not in line:
        return None
    try:
        record = json.loads(line)
        at = datetime.fromisoformat(record["time"]).astimezone(UTC)
        found = _row_of(record)
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return RecordedChange(at, *found) if found else None


def _row_of(record: dict[str, Any]) -> tuple[str, str] | None:
    """Return action and subject of the row for a record; None if it has no row."""
    match record["event"]:
        case "token.revoked":
            return "token.revoked", record["jti"]
        case "cut_off.recorded" | "stop.set" | "stop.lifted" as action:
            return action, f"{record['kind']}:{record['subject']}"
        case "client.changed":
            return record["action"], record["client_id"]
        case "scope.changed":
            return record["action"], record["scope"]
        case "key.changed" if record["event_hash"]:
            return record["action"], record["kid"] or record["ring"]
    return None


def _has_row(session: Session, change: RecordedChange) -> bool:
    same = (AuditRecord.action == change.action, AuditRecord.subject == change.subject)
    near = AuditRecord.at.between(change.at - _DELAY, change.at + _DELAY)
    if session.scalar(select(exists().where(near, *same))):
        return True
    # A token is revoked only once, so its row counts at any time.
    return change.action == "token.revoked" and bool(session.scalar(select(exists().where(*same))))
