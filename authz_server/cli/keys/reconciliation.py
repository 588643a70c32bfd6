"""Our records of signatures against a Vault's audit log, matched by the id of each call.

What our records say goes into a table on disk, so that years of them fit on a small machine.
"""

import gzip
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

from keys.backends.vault.audit_log import AuditLogReader, KeyUse, Use

#: So many are listed; of the others there is the number.
LISTED = 1_000
_BATCH = 5_000
#: A call is recorded after it was made, and by another clock.
_RECORD_DELAY = timedelta(minutes=1)
_EVENTS = frozenset({"token.issued", "signature.made"})
_TABLE = """
CREATE TABLE recorded (id TEXT PRIMARY KEY, count INT, kid TEXT, at TEXT, seen INT) WITHOUT ROWID
"""
_INSERT = """
INSERT INTO recorded VALUES (?, 1, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET count = count + 1
"""


@dataclass(frozen=True, slots=True)
class Period:
    """From when to when to look; None: without limit."""

    since: datetime | None = None
    until: datetime | None = None

    def holds(self, at: datetime) -> bool:
        """Tell whether ``at`` is within."""
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)

    def nearly_holds(self, at: datetime) -> bool:
        """Tell whether ``at`` is within, or so near that the record of a call within may be it."""
        since = self.since and self.since - _RECORD_DELAY
        until = self.until and self.until + _RECORD_DELAY
        return Period(since, until).holds(at)


@dataclass(slots=True)
class Reconciliation:
    """What came of a comparison.

    Attributes:
        calls: Calls that signed.
        signatures: What they signed.
        recorded: Signatures in our records, made by calls to a Vault.
        unaccounted: Calls that signed, of which our records know nothing.
        unaccounted_count: How many there are, listed or not.
        surplus: Calls that made more signatures than our records know of.
        taken: Calls that took the private key itself.
        unseen: Records whose call is not in the log: id, key id and time.
        unseen_count: How many there are, listed or not.
        identities: Who made calls that are accounted for, and how often.
        left_out: Calls in the log that were outside of the period.
    """

    calls: int = 0
    signatures: int = 0
    recorded: int = 0
    unaccounted: list[KeyUse] = field(default_factory=list)
    unaccounted_count: int = 0
    surplus: list[tuple[KeyUse, int]] = field(default_factory=list)
    taken: list[KeyUse] = field(default_factory=list)
    unseen: list[tuple[str, str, str]] = field(default_factory=list)
    unseen_count: int = 0
    identities: Counter[str] = field(default_factory=Counter)
    left_out: int = 0


def reconcile(
    reader: AuditLogReader, logs: Iterable[Path], records: Iterable[Path], period: Period
) -> Reconciliation:
    """Compare a Vault's audit log with our records.

    Args:
        reader: knows which keys to look for.
        logs: the log's files, oldest first; ``.gz`` too.
        records: the files of our audit records, of every node.
        period: what is outside of it is left out on both sides.

    Raises:
        OSError: a file cannot be read.
    """
    found = Reconciliation()
    # An empty name is a database in a file of its own that is gone when it is closed.
    with closing(sqlite3.connect("")) as table:
        table.execute(_TABLE)
        found.recorded = _load(table, records, period)
        for log in logs:
            with open_lines(log) as lines:
                for use in reader.read(lines):
                    if period.holds(use.at):
                        _match(table, use, found)
                    else:
                        found.left_out += 1
        unseen = "FROM recorded WHERE NOT seen"
        found.unseen_count = table.execute(f"SELECT count(*) {unseen}").fetchone()[0]
        found.unseen = table.execute(
            f"SELECT id, kid, at {unseen} ORDER BY at LIMIT {LISTED}"
        ).fetchall()
    return found


def _match(table: sqlite3.Connection, use: KeyUse, found: Reconciliation) -> None:
    if use.use is Use.TAKEN:
        found.taken.append(use)
        return
    found.calls += 1
    found.signatures += use.signatures
    row = table.execute("SELECT count FROM recorded WHERE id = ?", (use.request_id,)).fetchone()
    if row is None:
        found.unaccounted_count += 1
        if len(found.unaccounted) < LISTED:
            found.unaccounted.append(use)
        return
    table.execute("UPDATE recorded SET seen = 1 WHERE id = ?", (use.request_id,))
    found.identities[use.identity] += 1
    if use.signatures > row[0] and len(found.surplus) < LISTED:
        found.surplus.append((use, row[0]))


def _load(table: sqlite3.Connection, records: Iterable[Path], period: Period) -> int:
    """Put what our records say into the table; return how many there are."""
    count, batch = 0, []
    for record in _signatures(records):
        at = datetime.fromisoformat(record["time"])
        inside = period.holds(at)
        if not (inside or period.nearly_holds(at)):
            continue
        # What is just outside may belong to a call inside, but is not missed if it does not.
        kid = str(record.get("kid", ""))
        batch.append((record["backend_request_id"], kid, record["time"], not inside))
        count += inside
        if len(batch) == _BATCH:
            table.executemany(_INSERT, batch)
            batch.clear()
    table.executemany(_INSERT, batch)
    return count


def _signatures(records: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for path in records:
        with open_lines(path) as lines:
            for line in lines:
                if b'"backend_request_id":"' not in line:
                    continue
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if record.get("event") in _EVENTS and record.get("backend_request_id"):
                    yield record


def open_lines(path: Path) -> IO[bytes]:
    """Open a file for reading by lines; one whose name ends in ``.gz`` is unpacked.

    Raises:
        OSError: the file cannot be read.
    """
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")
