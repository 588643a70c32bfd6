"""Answer who could use a scope at a time, and who had a token with it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

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
from authz_server.operations.audit.grants import Grant, find_grants
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
        could: the clients that could obtain a token with one of them.
        unknown: the clients whose state at the time is not known.
        held: the clients that had such tokens, by the records of issued tokens.
        files: the files of records that were read; empty: no issued token is known.
        destination: the destination of audit records in the settings; those of ``stdout`` and
            ``stderr`` cannot be read here.
        complete: whether the records begin early enough to have every such token.
    """

    at: datetime
    scopes: tuple[str, ...]
    known: bool = True  # A server of the release before does not say so.
    could: tuple[Grant, ...]
    unknown: tuple[str, ...]
    held: tuple[HeldTokens, ...]
    files: tuple[str, ...]
    destination: str
    complete: bool


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
    destination = services.settings.audit.destination
    paths = tuple(files) or find_audit_files(destination)
    with services.database.reading() as session:
        catalogued = find_catalogued(session, scope)
        scopes = catalogued or {scope: frozenset({scope})}
        grants = find_grants(session, scopes, at)
        revoked = _find_revoked(session, at)
    spellings = frozenset[str]().union(*scopes.values())
    first_at = find_first_time(paths)
    return WhoAnswer(
        at=at,
        scopes=tuple(sorted(scopes)),
        known=bool(catalogued),
        could=grants.could,
        unknown=grants.unknown,
        held=_find_held(spellings, at, revoked, paths),
        files=tuple(map(str, paths)),
        destination=destination,
        complete=first_at is not None and first_at <= at - _LONGEST,
    )


class _Issued(msgspec.Struct, frozen=True):
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    client_id: str
    scope: str
    jti: str
    expires_at: int


_decode = msgspec.json.Decoder(_Issued).decode


def _find_held(
    spellings: frozenset[str], at: datetime, revoked: frozenset[str], paths: Sequence[Path]
) -> tuple[HeldTokens, ...]:
    found: dict[str, list[_Issued]] = {}
    period = Period(at - _LONGEST, at)
    for line in (line for path in reversed(paths) for line in _lines_of(path, period)):
        try:
            token = _decode(line)
        except UNREADABLE:
            continue
        if token.expires_at > at.timestamp() and not spellings.isdisjoint(token.scope.split(" ")):
            found.setdefault(token.client_id, []).append(token)
    return tuple(
        _describe(client_id, found[client_id], spellings, revoked) for client_id in sorted(found)
    )


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
