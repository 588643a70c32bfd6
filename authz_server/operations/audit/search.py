"""Search the audit trail: stored changes, and the records of issuance and refusals in files."""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import dropwhile, islice
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import func, select

from authz_server.assembly import Services
from authz_server.audit.findings import UNREADABLE
from authz_server.audit.models import AuditRecord
from authz_server.audit.records import CHANGES
from authz_server.audit.stored_rows import UNKNOWN_TIME, load
from authz_server.audit.time_limit import has_time
from authz_server.operations.audit.actions import fits
from authz_server.operations.audit.files import Period, find_audit_files, read_time
from authz_server.operations.audit.spellings import find_spellings
from authz_server.operations.stored_records import RecordFilters, find_newest

#: Changes that have a stored record too.
_STORED_EVENTS = frozenset(str(kind.__struct_config__.tag) for kind in CHANGES)
_PAGE_ROWS = 500
_LINES_BETWEEN_CHECKS = 2_048
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailRecord:
    """A record of the audit trail, stored or from a file.

    Attributes:
        at: its time.
        event: the change or the event, for example ``client.created`` or ``token.issued``.
        actor: who acted: the actor of a change, the client of a request.
        subject: the id of the changed object; the client of an event.
        detail: further facts.
        source: ``stored``, or the name of the file.
    """

    at: datetime
    event: str
    actor: str
    subject: str
    detail: Mapping[str, Any]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailSearch:
    """The newest records that were found.

    Attributes:
        records: the records, the newest first.
        more: whether there may be older ones.
        files: the files that were searched.
        searched_until: the time down to which the files were read when the time limit passed;
            None: they were read as far as needed.
    """

    records: tuple[TrailRecord, ...]
    more: bool
    files: tuple[str, ...]
    searched_until: datetime | None = None


def search_trail(
    services: Services, filters: RecordFilters, *, files: Sequence[Path] = (), limit: int
) -> TrailSearch:
    """Return the newest records of the stored changes and the files.

    Args:
        services: the parts of the server.
        filters: the records to find.
        files: the files, the oldest first; empty: those of the settings, with the rotated ones.
        limit: the largest number of records.

    Raises:
        OSError: a file cannot be read.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    paths = tuple(files) or find_audit_files(services.settings.audit.destination)
    place = _Place()
    found: list[TrailRecord] = []
    for record in islice(iterate_trail(services, filters, paths, place), limit + 1):
        if place.stopped_at is not None and record.at < place.stopped_at:
            break
        found.append(record)
    return TrailSearch(
        records=tuple(found[:limit]),
        more=len(found) > limit or place.stopped_at is not None,
        files=tuple(map(str, paths)),
        searched_until=place.stopped_at if len(found) <= limit else None,
    )


def iterate_records(
    services: Services, filters: RecordFilters, *, files: Sequence[Path] = ()
) -> Iterator[TrailRecord]:
    """Yield the records of the stored changes and the files, the newest first.

    Args:
        services: the parts of the server.
        filters: the records to find.
        files: the files, the oldest first; empty: those of the settings, with the rotated ones.

    Raises:
        OSError: a file cannot be read.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    paths = tuple(files) or find_audit_files(services.settings.audit.destination)
    return iterate_trail(services, filters, paths)


def iterate_trail(
    services: Services,
    filters: RecordFilters,
    paths: Sequence[Path],
    place: "_Place | None" = None,
) -> Iterator[TrailRecord]:
    """Yield the records, the newest first.

    Args:
        services: the parts of the server.
        filters: the records to find.
        paths: the files, the oldest first.
        place: is set where the time limit ends the reading of the files.

    Raises:
        OSError: a file cannot be read.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    with services.database.reading() as session:
        if filters.scope is not None:
            filters = replace(filters, spellings=find_spellings(session, filters.scope))
        oldest = load(lambda: session.scalar(select(func.min(AuditRecord.at))))
    lines = _matching_lines(paths, filters, oldest, place or _Place())
    yield from heapq.merge(
        _stored(services, filters), lines, key=lambda record: record.at, reverse=True
    )


def _stored(services: Services, filters: RecordFilters) -> Iterator[TrailRecord]:
    before: int | None = None
    at: datetime | None = None
    while True:
        with services.database.reading() as session:
            rows = find_newest(session, filters, before, _PAGE_ROWS)
        for row in rows:
            # One whose time cannot be read stays in its place.
            at = row.at if row.at != UNKNOWN_TIME else at or datetime.now(UTC)
            yield TrailRecord(
                at=at,
                event=row.action,
                actor=row.actor,
                subject=row.subject,
                detail=row.detail,
                source="stored",
            )
        if len(rows) < _PAGE_ROWS:
            return
        before = rows[-1].id


class _Place:
    """The time down to which files were read when the time limit passed; None: it did not."""

    __slots__ = ("stopped_at",)

    def __init__(self) -> None:
        self.stopped_at: datetime | None = None


def _matching_lines(
    paths: Sequence[Path], filters: RecordFilters, oldest: datetime | None, place: _Place
) -> Iterator[TrailRecord]:
    """Yield the records of files that are not stored, the newest first."""
    needles, times = _needles(filters), Period(filters.since, filters.until)
    for path in reversed(paths):
        # Lines after the period do not count: each page reads some lines of its own.
        lines = dropwhile(times.is_later, times.find_lines(path))
        for number, line in enumerate(lines, 1):
            if number % _LINES_BETWEEN_CHECKS == 0 and not has_time():
                reached = _read(line, path.name)
                if reached is not None:
                    place.stopped_at = reached.at
                    return
            if times.ends_before(line):
                break
            if times.leaves_out(line) or any(needle not in line for needle in needles):
                continue
            record = _read(line, path.name)
            if record is None or not _fits(record, filters):
                continue
            event = record.detail["event"]
            if event in _STORED_EVENTS and oldest is not None and record.at >= oldest:
                continue
            yield record


def _needles(filters: RecordFilters) -> tuple[bytes, ...]:
    """Return texts that every matching line has: parsing takes longer than searching."""
    wanted = (
        filters.client,
        filters.actor,
        filters.subject,
        filters.key,
        filters.ring,
        filters.jti,
    )
    return tuple(
        msgspec.json.encode(each)
        for each in wanted
        if each is not None and each.isascii() and "/" not in each
    )


def _read(line: bytes, source: str) -> TrailRecord | None:
    try:
        record = _decode(line)
        at = read_time(record)
        event = record["event"]
    except (*UNREADABLE, KeyError, TypeError, ValueError):
        return None
    if not isinstance(event, str):
        return None
    client = str(record.get("client_id", ""))
    return TrailRecord(
        at=at,
        event=str(record.get("action") or event),
        actor=str(record.get("actor") or client),
        subject=str(record.get("subject") or record.get("scope_name") or client),
        detail=record,
        source=source,
    )


def _fits(record: TrailRecord, filters: RecordFilters) -> bool:
    line = record.detail
    names = {line.get("event"), record.event}
    checks = (
        (filters.since, lambda at: record.at >= at),
        (filters.until, lambda at: record.at < at),
        (filters.actor, lambda actor: record.actor == actor),
        (filters.client, lambda client: client in _values(line, _CLIENTS)),
        (filters.subject, lambda subject: subject in _values(line, _SUBJECTS)),
        (filters.key, lambda key: key in _values(line, ("kid", "ring", "subject"))),
        (filters.ring, lambda ring: line.get("ring") == ring),
        (filters.jti, lambda jti: jti in _values(line, ("jti", "subject"))),
        (filters.action, lambda action: any(fits(str(name), action) for name in names)),
        (filters.scope, lambda _: not filters.spellings.isdisjoint(_scopes(line))),
    )
    return all(test(wanted) for wanted, test in checks if wanted is not None)


_CLIENTS = ("client_id", "actor", "subject", "actor_client_id", "subject_client_id")
_SUBJECTS = ("subject", "client_id", "jti", "kid", "ring", "scope")


def _values(line: Mapping[str, Any], names: Iterable[str]) -> set[str]:
    return {value for name in names if isinstance(value := line.get(name), str)}


def _scopes(line: Mapping[str, Any]) -> set[str]:
    text = f"{line.get('scope', '')} {line.get('subject', '')} {line.get('detail', '')}"
    return set(text.split(" "))
