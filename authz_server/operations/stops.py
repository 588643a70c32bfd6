"""The kill switch: stop a scope, a client, a resource server or a programme, and lift the stop."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, distinct, exists, func, select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import record_diff, record_difference, store_audit_record
from authz_server.clients.models import CLIENT_GRANT, Client
from authz_server.database.change_feed import record_change
from authz_server.database.orm import insert_into
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError
from authz_server.operations.client_search import LISTS_CLIENTS
from authz_server.operations.issued_tokens import (
    IssuedTokens,
    Origins,
    find_issued_tokens,
    instant_of_record,
)
from authz_server.operations.limited_services import reach_of
from authz_server.operations.programmes import get_programme
from authz_server.operations.revocation import find_client_id
from authz_server.operations.stop_acts import note_stop
from authz_server.scopes.models import Scope, ScopeAlias
from authz_server.settings import LONGEST_LIFETIME_SECONDS
from authz_server.settings.approvals import LIFT_STOP, SET_STOP
from authz_server.tokens.models import RevokedToken, Stop
from authz_server.tokens.stops import StopKind, lock_resource_server

MAXIMUM_REASON_CHARACTERS = 500
#: The largest number of clients that the extent of a stop names.
NAMED_CLIENTS = 500
_GRANT = CLIENT_GRANT.c


@dataclass(frozen=True, slots=True, kw_only=True)
class StopView:
    """A stop in force.

    Attributes:
        kind: ``scope``, ``client``, ``resource-server`` or ``programme``.
        subject: the id or name of what is stopped.
        scopes: the scopes of a stopped programme, or the stopped scope.
        clients: the clients of a stopped programme, or the stopped client.
        reason: the operator's reason.
        actor: the operator.
        created_at: the time at which it was set.
    """

    kind: str
    subject: str
    scopes: tuple[str, ...]
    clients: tuple[str, ...]
    reason: str
    actor: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BlastRadius:
    """The extent of a stop.

    Attributes:
        kind: ``scope``, ``client``, ``resource-server`` or ``programme``.
        subject: the canonical id or name.
        scopes: the scopes without tokens; of a stopped client, those that it holds.
        clients: the clients that are stopped themselves or hold one of the scopes, up to
            :data:`NAMED_CLIENTS` of them.
        client_count: their number.
        resource_servers: the resource servers that own the scopes.
        in_force: the number of tokens that become inactive or lose a scope, by the audit file;
            those that were exchanged from others are among them, and revoked ones are not. None:
            there is no file of the audit records here that can be read.
        in_force_since: the time of the first record in that file.
        complete: True if the file covers the longest lifetime of a token.
    """

    kind: StopKind
    subject: str
    scopes: tuple[str, ...]
    clients: tuple[str, ...]
    client_count: int
    resource_servers: tuple[str, ...]
    in_force: int | None
    in_force_since: datetime | None
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """The subject of a stop by its canonical name, with the members of the stored row."""

    name: str
    scopes: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    resource_server: str = ""


def list_stops(services: Services) -> tuple[StopView, ...]:
    """Return the stops in force, the oldest first."""
    with services.database.reading() as session:
        return tuple(map(_describe, session.scalars(select(Stop).order_by(Stop.created_at))))


def plan_stop(services: Services, kind: StopKind, subject: str) -> BlastRadius:
    """Return the extent of a stop, without a change.

    Args:
        services: the parts of the server.
        kind: ``scope``, ``client``, ``resource-server`` or ``programme``.
        subject: a scope in any spelling, an id, or the name of a programme.

    Raises:
        NotFoundError: the subject does not exist.
    """
    # The latest revocations: what is revoked is not in force.
    services.feed.poll()
    with services.database.reading() as session:
        return _measure(services, session, kind, _find_subject(services, session, kind, subject))


def set_stop(services: Services, planned: BlastRadius, *, reason: str, actor: str) -> None:
    """Stop issuing tokens and make the issued ones inactive, on every node within a second.

    Revocation works as before. The tokens are active again when the stop is lifted, unless they
    are revoked or expired.

    Args:
        services: the parts of the server.
        planned: what to stop, as :func:`plan_stop` returned it; its figures are recorded.
        reason: the recorded reason, 1 to 500 printable characters.
        actor: the recorded actor.

    Raises:
        InvalidChangeError: the reason is missing or malformed.
        NotFoundError: the subject no longer exists.
        ConflictError: it is stopped already.
    """
    _require_reason(reason)
    kind, now = planned.kind, services.corrected_clock()
    with services.transaction() as session:
        found = _find_subject(services, session, kind, planned.subject, locked=True)
        added = session.execute(
            insert_into(session, Stop)
            .values(
                kind=kind,
                subject=found.name,
                scopes=list(found.scopes),
                clients=list(found.clients),
                reason=reason,
                actor=actor,
                created_at=now,
            )
            .on_conflict_do_nothing()
            .returning(Stop.subject)
        ).first()
        if added is None:
            raise ConflictError(f"The {noun_of(kind)} {found.name!r} is stopped already.")
        store_audit_record(
            session,
            at=now,
            actor=actor,
            action="stop.set",
            subject=f"{kind}:{found.name}",
            reason=reason,
            clients=planned.client_count,
            in_force=planned.in_force,
        )
        record_diff(session, {"stopped": {"before": None, "after": found.name}})
        record_change(session, "stop", f"{kind}:{found.name}"[:200])
        note_stop(services, session, SET_STOP, planned, actor=actor, reason=reason)


def lift_stop(
    services: Services, kind: StopKind, subject: str, *, reason: str, actor: str
) -> StopView:
    """Lift a stop; return it as it was.

    Args:
        services: the parts of the server.
        kind: ``scope``, ``client``, ``resource-server`` or ``programme``.
        subject: the subject as :func:`list_stops` returns it, or a scope in any spelling.
        reason: the recorded reason, 1 to 500 printable characters.
        actor: the recorded actor.

    Raises:
        InvalidChangeError: the reason is missing or malformed.
        NotFoundError: there is no such stop.
    """
    _require_reason(reason)
    with services.transaction() as session:
        stop = session.get(Stop, (kind, subject), with_for_update=True)
        if stop is None and kind == "scope":
            name = services.scopes.get_scope(session, subject).name
            stop = session.get(Stop, (kind, name), with_for_update=True)
        if stop is None:
            raise not_stopped(kind, subject)
        lifted = _describe(stop)
        note_stop(services, session, LIFT_STOP, lifted, actor=actor, reason=reason)
        session.delete(stop)
        store_audit_record(
            session,
            at=services.corrected_clock(),
            actor=actor,
            action="stop.lifted",
            subject=f"{kind}:{lifted.subject}",
            reason=reason,
        )
        record_difference(session, lifted, None)
        session.flush()
        record_change(session, "stop", f"{kind}:{lifted.subject}"[:200])
    return lifted


def _find_subject(
    services: Services, session: Session, kind: StopKind, subject: str, *, locked: bool = False
) -> _Subject:
    """Return a subject.

    Args:
        services: the parts of the server.
        session: a database session.
        kind: the kind of the subject.
        subject: as for :func:`plan_stop`.
        locked: whether it stays as it is until the transaction ends: a programme that is replaced
            at the same time would have a member that is not stopped.
    """
    match kind:
        case "scope":
            find = services.scopes.lock_scope if locked else services.scopes.get_scope
            name = find(session, subject).name
            return _Subject(name=name, scopes=(name,))
        case "client":
            client_id = find_client_id(services, session, subject, kind="client")
            return _Subject(name=client_id, clients=(client_id,))
        case "resource-server":
            if locked:
                lock_resource_server(session, subject)
            server = services.clients.get_client(session, subject, kind="resource_server")
            return _Subject(name=server.id, resource_server=server.id)
        case "programme":
            found = get_programme(session, subject, locked=locked)
            return _Subject(
                name=found.name, scopes=tuple(found.scopes), clients=tuple(found.clients)
            )


def _measure(services: Services, session: Session, kind: StopKind, found: _Subject) -> BlastRadius:
    owned = session.execute(select(Scope.name, Scope.resource_server_id))
    owners = {name: owner for name, owner in owned}  # noqa: C416 - typed rows
    scopes = set(found.scopes)
    if found.resource_server:
        scopes |= {name for name, owner in owners.items() if owner == found.resource_server}
    holders, number = _find_holders(services, session, scopes, found.clients)
    concerned = set(scopes)
    for client_id in found.clients:
        client = session.get(Client, client_id)
        concerned.update(client.allowed_scopes if client is not None else ())
    now = services.corrected_clock()
    issued = _find_issued(services, session, scopes, found.clients)
    since = issued.known_since if issued is not None else None
    longest = timedelta(seconds=LONGEST_LIFETIME_SECONDS)
    return BlastRadius(
        kind=kind,
        subject=found.name,
        scopes=tuple(sorted(concerned)),
        clients=holders,
        client_count=number,
        resource_servers=tuple(
            sorted({owner for name in concerned if (owner := owners.get(name)) is not None})
        ),
        in_force=issued.count if issued is not None else None,
        in_force_since=since,
        complete=since is not None and since <= now - longest,
    )


def _find_holders(
    services: Services, session: Session, scopes: AbstractSet[str], stopped: Sequence[str]
) -> tuple[tuple[str, ...], int]:
    """Return some of the clients that are stopped or hold a scope, and the number of all."""
    of_scope = and_(_GRANT.kind == "scope", _GRANT.name.in_(sorted(scopes)))
    query = select(_GRANT.client_id).where(of_scope)
    reach = reach_of(services)
    # A caller that is limited by resource servers alone sees each client with a scope of them.
    if reach and (reach.limits.organisations is not None or not scopes <= reach.seen_scopes):
        # From its clients, of which there are fewer than of the grants of a scope.
        is_holder = exists().where(_GRANT.client_id == Client.id, of_scope)
        query = select(Client.id).where(Client.kind == "client", is_holder)
        query = query.execution_options(**{LISTS_CLIENTS: True})
    # Of one scope, the index has each client once, in the order of the ids.
    several = len(scopes) > 1
    (client_id,) = query.selected_columns
    counted = func.count(distinct(client_id) if several else client_id)
    number = session.scalar(query.with_only_columns(counted, maintain_column_froms=True)) or 0
    further = query.distinct() if several else query.order_by(client_id)
    holders = session.scalars(further.limit(NAMED_CLIENTS)).all()
    both = session.scalars(query.distinct().where(client_id.in_(stopped))).all() if stopped else ()
    named = dict.fromkeys([*stopped, *holders])
    return tuple(sorted([*named][:NAMED_CLIENTS])), number + len(stopped) - len(both)


def _find_issued(
    services: Services, session: Session, scopes: set[str], clients: tuple[str, ...]
) -> IssuedTokens | None:
    aliases = session.execute(select(ScopeAlias.alias, ScopeAlias.scope_name))
    spellings = scopes | {alias for alias, name in aliases if name in scopes}

    now = services.corrected_clock()
    revoked = set(session.scalars(select(RevokedToken.jti).where(RevokedToken.expires_at > now)))

    def is_concerned(record: Mapping[str, Any], origins: Origins) -> bool:
        names = str(record.get("scope")).split(" ")
        holders = {str(record.get("client_id")), *origins.values()}
        if holders.isdisjoint(clients) and spellings.isdisjoint(names):
            return False
        if not revoked.isdisjoint((str(record.get("jti")), *origins)):
            return False
        kid, instant = str(record.get("kid")), instant_of_record(record)
        find_cut_off = services.revocation_state.find_cut_off
        return not any(find_cut_off(holder, kid, names, instant) for holder in holders)

    try:
        return find_issued_tokens(services.settings, is_concerned, now)
    except OSError:
        # A file that cannot be read must not prevent a stop.
        return None


def _describe(stop: Stop) -> StopView:
    return StopView(
        kind=stop.kind,
        subject=stop.subject,
        scopes=tuple(stop.scopes),
        clients=tuple(stop.clients),
        reason=stop.reason,
        actor=stop.actor,
        created_at=stop.created_at,
    )


def not_stopped(kind: StopKind, subject: str) -> NotFoundError:
    """Return the error of a stop that is not there."""
    return NotFoundError(
        f"The {noun_of(kind)} {subject!r} is not stopped. `authz-server stop list` shows the stops."
    )


def noun_of(kind: StopKind) -> str:
    """Return the words for a kind of stop, such as ``resource server``."""
    return kind.replace("-", " ")


def _require_reason(reason: str) -> None:
    if not reason.isprintable() or not 1 <= len(reason.strip()) <= MAXIMUM_REASON_CHARACTERS:
        raise InvalidChangeError(
            f"--reason: use 1 to {MAXIMUM_REASON_CHARACTERS} printable characters."
        )
