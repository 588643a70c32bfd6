"""Answer who could use a scope at a time, and who had a token with it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.findings import UNREADABLE
from authz_server.audit.models import AuditRecord
from authz_server.operations.audit.files import (
    Period,
    find_audit_files,
    find_first_time,
    within_time,
)
from authz_server.operations.audit.grants import Grant, describe_grants, find_grants
from authz_server.operations.audit.spellings import find_catalogued
from authz_server.settings import LONGEST_LIFETIME_SECONDS

_LONGEST = timedelta(seconds=LONGEST_LIFETIME_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldTokens:
    """The tokens of a client that were in force at the time.

    Attributes:
        client_id: the client.
        tokens: their number.
        revoked: the number of those that a revocation of the token had ended.
        first_issued_at: when the first of them was issued.
        last_issued_at: when the last of them was issued.
        scopes: the scopes in question that they had, as they spell them.
    """

    client_id: str
    tokens: int
    revoked: int
    first_issued_at: datetime
    last_issued_at: datetime
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoAnswer:
    """The clients that could use scopes at a time, and those that had tokens with them.

    Attributes:
        at: the time.
        scopes: the scopes, by their canonical names.
        known: whether the catalogue has them now; one that it does not have is misspelled, or was
            removed, and then it stands for itself.
        could: the clients that could obtain a token with one of them, or a part of these.
        could_count: the number of all of them.
        unknown: the clients whose state at the time is not known, or a part of these.
        unknown_count: the number of all of them.
        held: the clients that had such tokens, by the records of issued tokens, or a part of these.
        held_count: the number of all of them.
        files: the files of records that were read; empty: no issued token is known.
        destination: the destination of audit records in the settings; those of ``stdout`` and
            ``stderr`` cannot be read here.
        complete: whether the records begin early enough to have every such token.
        next: the cursor of the next part; None: there is none.
    """

    at: datetime
    scopes: tuple[str, ...]
    known: bool = True  # A server of the release before does not say so.
    could: tuple[Grant, ...]
    could_count: int
    unknown: tuple[str, ...]
    unknown_count: int
    held: tuple[HeldTokens, ...]
    held_count: int
    files: tuple[str, ...]
    destination: str
    complete: bool
    next: str | None = None


class WhoPlace(NamedTuple):
    """The ids of the last clients of a part of an answer, in each of its lists."""

    could: str = ""
    unknown: str = ""
    held: str = ""


_BEGINNING = WhoPlace()


def find_who(
    services: Services, scope: str, at: datetime, *, files: Sequence[Path] = ()
) -> WhoAnswer:
    """Return who could use a scope at a time, and who had a token with it.

    Args:
        services: the parts of the server.
        scope: a scope in any spelling; ``disburse`` and ``disburse/*`` stand for all below.
        at: the time.
        files: the files of audit records, the oldest first; empty: those of the settings.

    Raises:
        OSError: a file cannot be read.
        ReadingTooLongError: the time limit has passed.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    return find_part_of_who(services, scope, at, files=files)[0]


def find_part_of_who(  # noqa: PLR0913 - what, when, from where
    services: Services,
    scope: str,
    at: datetime,
    *,
    files: Sequence[Path] = (),
    after: WhoPlace = _BEGINNING,
    limit: int | None = None,
) -> tuple[WhoAnswer, WhoPlace | None]:
    """Return a part of the answer of :func:`find_who`, and where the next part begins.

    Args:
        services: the parts of the server.
        scope: the scope.
        at: the time.
        files: the files of audit records.
        after: the place after which the part begins.
        limit: the largest number of clients in each list; None: all.

    Returns:
        the part, and the place at which it ends; None: it is the last one.
    """
    destination = services.settings.audit.destination
    paths = tuple(files) or find_audit_files(destination)
    with services.database.reading() as session:
        catalogued = find_catalogued(session, scope)
        scopes = catalogued or {scope: frozenset({scope})}
        grants = find_grants(session, scopes, at)
        revoked = _find_revoked(session, at)
    spellings = frozenset[str]().union(*scopes.values())
    issued = _find_issued(spellings, at, paths)
    whole = ([*grants.could], grants.unknown, sorted(issued))
    could, unknown, held = parts = [
        [each for each in ids if each > end][:limit] for ids, end in zip(whole, after, strict=True)
    ]
    with services.database.reading() as session:
        described = describe_grants(session, {each: grants.could[each] for each in could}, at)
    first_at = find_first_time(paths)
    answer = WhoAnswer(
        at=at,
        scopes=tuple(sorted(scopes)),
        known=bool(catalogued),
        could=described,
        could_count=len(grants.could),
        unknown=tuple(unknown),
        unknown_count=len(grants.unknown),
        held=tuple(_describe(each, issued[each], spellings, revoked) for each in held),
        held_count=len(issued),
        files=tuple(map(str, paths)),
        destination=destination,
        complete=first_at is not None and first_at <= at - _LONGEST,
    )
    return answer, _find_end(whole, parts, after)


def _find_end(
    whole: Sequence[Sequence[str]], parts: Sequence[Sequence[str]], after: WhoPlace
) -> WhoPlace | None:
    """Return the place at which the parts of lists end; None: they are the last ones."""
    ends = WhoPlace(*(part[-1] if part else end for part, end in zip(parts, after, strict=True)))
    is_last = all(not ids or ids[-1] <= end for ids, end in zip(whole, ends, strict=True))
    return None if is_last else ends


class _Issued(msgspec.Struct, frozen=True):
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    client_id: str
    scope: str
    jti: str
    expires_at: int


_decode = msgspec.json.Decoder(_Issued).decode


def _find_issued(
    spellings: frozenset[str], at: datetime, paths: Sequence[Path]
) -> dict[str, list[_Issued]]:
    """Return the tokens in force with one of the scopes, by their clients."""
    found: dict[str, list[_Issued]] = {}
    period = Period(at - _LONGEST, at)
    for line in (line for path in reversed(paths) for line in _lines_of(path, period)):
        try:
            token = _decode(line)
        except UNREADABLE:
            continue
        if token.expires_at > at.timestamp() and not spellings.isdisjoint(token.scope.split(" ")):
            found.setdefault(token.client_id, []).append(token)
    return found


def _lines_of(path: Path, period: Period) -> Iterator[bytes]:
    for line in within_time(period.find_lines(path)):
        if period.ends_before(line):
            return
        if b'"event":"token.issued"' in line and not period.leaves_out(line):
            yield line


def _find_revoked(session: Session, at: datetime) -> frozenset[str]:
    """Return the ids of the tokens that were revoked one by one in the hour before."""
    query = select(AuditRecord.subject).where(
        AuditRecord.action == "token.revoked", AuditRecord.at.between(at - _LONGEST, at)
    )
    return frozenset(session.scalars(query))


def _describe(
    client_id: str, tokens: Sequence[_Issued], spellings: frozenset[str], revoked: frozenset[str]
) -> HeldTokens:
    scopes = {scope for token in tokens for scope in token.scope.split(" ")}
    times = [token.time for token in tokens]
    return HeldTokens(
        client_id=client_id,
        tokens=len(tokens),
        revoked=sum(token.jti in revoked for token in tokens),
        first_issued_at=min(times),
        last_issued_at=max(times),
        scopes=tuple(sorted(scopes & spellings)),
    )
