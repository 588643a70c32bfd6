"""Match the calls in a Vault's audit log with the audit records, by the id of each call.

The records are put into a table on disk, so that years of them need little memory.
"""

import gzip
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

from authz_server.operations.audit.files import read_time
from keys.backends.vault.audit_log import AuditLogReader, KeyUse, Use

#: The limit of each list; the others are counted.
LISTED = 1_000
_BATCH = 5_000
#: A call is recorded after it was made, and with the time of another clock.
_RECORD_DELAY = timedelta(minutes=1)
_EVENTS = frozenset({"token.issued", "signature.made", "audit.checkpoint"})
_TABLE = """
CREATE TABLE recorded (id TEXT PRIMARY KEY, count INT, kid TEXT, at TEXT, seen INT) WITHOUT ROWID
"""
_INSERT = """
INSERT INTO recorded VALUES (?, 1, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET count = count + 1
"""


@dataclass(frozen=True, slots=True)
class Period:
    """A period; None: without limit."""

    since: datetime | None = None
    until: datetime | None = None

    def holds(self, at: datetime) -> bool:
        """Return whether ``at`` is in the period."""
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)

    def nearly_holds(self, at: datetime) -> bool:
        """Return whether a record of ``at`` may be that of a call in the period."""
        since = self.since and self.since - _RECORD_DELAY
        until = self.until and self.until + _RECORD_DELAY
        return Period(since, until).holds(at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """The result of a comparison.

    Attributes:
        calls: the number of calls that signed.
        signatures: the number of signatures that they made.
        recorded: the number of recorded signatures by calls to a Vault.
        unaccounted: calls that signed and are not recorded, up to a limit.
        unaccounted_count: the number of these calls.
        surplus: calls that made more signatures than are recorded, with the recorded number.
        taken: calls that exported the private key.
        unseen: records whose call is not in the log, up to a limit: id, key id and time.
        unseen_count: the number of these records.
        identities: the number of recorded calls of each identity.
        left_out: the number of calls in the log outside of the period.
    """

    calls: int
    signatures: int
    recorded: int
    unaccounted: tuple[KeyUse, ...]
    unaccounted_count: int
    surplus: tuple[tuple[KeyUse, int], ...]
    taken: tuple[KeyUse, ...]
    unseen: tuple[tuple[str, str, str], ...]
    unseen_count: int
    identities: Mapping[str, int]
    left_out: int


class _Comparison:
    """A comparison in progress, on the table of the records."""

    def __init__(self, table: sqlite3.Connection) -> None:
        self._table = table
        self._unaccounted: list[KeyUse] = []
        self._surplus: list[tuple[KeyUse, int]] = []
        self._taken: list[KeyUse] = []
        self._identities: Counter[str] = Counter()
        self._calls = self._signatures = self._unaccounted_count = 0
        self.left_out = 0

    def match(self, use: KeyUse) -> None:
        """Match one call with the records."""
        if use.use is Use.TAKEN:
            self._taken.append(use)
            return
        self._calls += 1
        self._signatures += use.signatures
        wanted = (use.request_id,)
        row = self._table.execute("SELECT count FROM recorded WHERE id = ?", wanted).fetchone()
        if row is None:
            self._unaccounted_count += 1
            if len(self._unaccounted) < LISTED:
                self._unaccounted.append(use)
            return
        self._table.execute("UPDATE recorded SET seen = 1 WHERE id = ?", wanted)
        self._identities[use.identity] += 1
        if use.signatures > row[0] and len(self._surplus) < LISTED:
            self._surplus.append((use, row[0]))

    def finish(self, recorded: int) -> Reconciliation:
        """Return the result; ``recorded`` is the number of records."""
        unseen = "FROM recorded WHERE NOT seen"
        listed = f"SELECT id, kid, at {unseen} ORDER BY at LIMIT {LISTED}"
        return Reconciliation(
            calls=self._calls,
            signatures=self._signatures,
            recorded=recorded,
            unaccounted=tuple(self._unaccounted),
            unaccounted_count=self._unaccounted_count,
            surplus=tuple(self._surplus),
            taken=tuple(self._taken),
            unseen=tuple(self._table.execute(listed).fetchall()),
            unseen_count=self._table.execute(f"SELECT count(*) {unseen}").fetchone()[0],
            identities=self._identities,
            left_out=self.left_out,
        )


def reconcile(
    reader: AuditLogReader, logs: Iterable[Path], records: Iterable[Path], period: Period
) -> Reconciliation:
    """Compare a Vault's audit log with the audit records.

    Args:
        reader: reads the calls that use the keys.
        logs: the files of the log, oldest first; ``.gz`` too.
        records: the files of the audit records of every node.
        period: the period to compare.

    Raises:
        OSError: a file cannot be read.
    """
    # With an empty name, SQLite uses a temporary file that it deletes at the end.
    with closing(sqlite3.connect("")) as table:
        table.execute(_TABLE)
        recorded, comparison = _load(table, records, period), _Comparison(table)
        for log in logs:
            with open_lines(log) as lines:
                for use in reader.read(lines):
                    if period.holds(use.at):
                        comparison.match(use)
                    else:
                        comparison.left_out += 1
        return comparison.finish(recorded)


def _load(table: sqlite3.Connection, records: Iterable[Path], period: Period) -> int:
    """Insert the records into the table; return their number."""
    count, batch = 0, []
    for at, record in _signatures(records):
        inside = period.holds(at)
        if not (inside or period.nearly_holds(at)):
            continue
        # A record just outside may belong to a call inside. It is not listed if it does not.
        kid = str(record.get("kid", ""))
        batch.append((record["backend_request_id"], kid, record["time"], not inside))
        count += inside
        if len(batch) == _BATCH:
            table.executemany(_INSERT, batch)
            batch.clear()
    table.executemany(_INSERT, batch)
    return count


def _signatures(records: Iterable[Path]) -> Iterator[tuple[datetime, dict[str, Any]]]:
    for path in records:
        with open_lines(path) as lines:
            for line in lines:
                if b'"backend_request_id":"' not in line:
                    continue
                try:
                    record = json.loads(line)
                    at = read_time(record)
                    is_signature = record["event"] in _EVENTS
                except (ValueError, RecursionError, KeyError, TypeError):
                    continue
                request_id = record.get("backend_request_id")
                if is_signature and request_id and isinstance(request_id, str):
                    yield at, record


def open_lines(path: Path) -> IO[bytes]:
    """Open a file for reading by lines; a file ``.gz`` is decompressed.

    Raises:
        OSError: the file cannot be read.
    """
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")
