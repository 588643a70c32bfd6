"""The audit records that an administrator with limits sees: of what is its own, since it is.

Earlier records, such as those of a client that had scopes of others, are about these too.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, ColumnElement, String, Text, and_, case, cast, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from authz_server.audit.models import AUDIT_NAME, AuditRecord
from authz_server.audit.stored_rows import read_records
from authz_server.clients.models import CLIENT_GRANT
from authz_server.operations.audit.actions import STOP_ACTIONS
from authz_server.operations.id_lists import is_one_of, is_sqlite
from authz_server.operations.permissions import Limits

if TYPE_CHECKING:
    from authz_server.operations.reach import Reach

#: Before the id of a client, as the subject of a record.
_OF_CLIENT = "client:"
#: The records by which a scope or a resource server comes from others.
_MOVES = ("scope.assigned", "scope.deleted", "resource_server.updated", "resource_server.deleted")
#: The fact of the record of a deleted scope that names its resource server.
_OWNER = "resource_server_id"
# Columns of the tables themselves, in subqueries: the rules do not apply within the rules.
_LATER = AuditRecord.__table__.alias("later_record").c
_NAME = AUDIT_NAME.alias("other_name").c
_HELD = CLIENT_GRANT.alias("held_grant").c
_Column = ColumnElement[Any] | InstrumentedAttribute[str]


def find_foreign_until(
    session: Session,
    limits: Limits,
    servers: AbstractSet[str],
    scopes: Mapping[str, str | None],
) -> dict[str, int]:
    """Return the number of the last record from when a scope or a resource server was of others.

    Args:
        session: a session that is not narrowed.
        limits: the limits of a caller.
        servers: the ids of its own resource servers.
        scopes: the names of its own scopes, with their resource servers.

    Returns:
        the numbers by the kind and the name, such as ``scope:mapper/link``; of what has always been
        its own, there is none.
    """
    is_own = is_one_of(
        AuditRecord.subject, sorted({*servers, *scopes}), is_sqlite=is_sqlite(session)
    )
    moves = select(AuditRecord).where(is_own, AuditRecord.action.in_(_MOVES))
    until: dict[str, int] = {}
    owners: dict[str, set[str | None]] = {name: {server} for name, server in scopes.items()}
    for record in read_records(session, moves.order_by(AuditRecord.id)):
        if _was_of_others(record, limits, servers):
            kind = "scope" if record.action.startswith("scope.") else "resource-server"
            until[f"{kind}:{record.subject}"] = record.id
        elif record.action == "scope.deleted" and record.subject in owners:
            owners[record.subject].add(record.detail[_OWNER])
    for name, servers_of_scope in owners.items():
        of_servers = (until.get(f"resource-server:{server}", 0) for server in servers_of_scope)
        latest = max(until.get(f"scope:{name}", 0), *of_servers)
        if latest:
            until[f"scope:{name}"] = latest
    return until


def _was_of_others(record: AuditRecord, limits: Limits, servers: AbstractSet[str]) -> bool:
    """Return whether what a record is about belonged to others before."""
    if record.action == "scope.deleted" and _OWNER in record.detail:
        owner = record.detail[_OWNER]
        return owner is not None and not (isinstance(owner, str) and owner in servers)
    if record.action.endswith(".deleted"):
        return True
    diff = record.detail.get("diff")
    name = "resource_server" if record.action == "scope.assigned" else "organisation"
    change = diff.get(name) if isinstance(diff, dict) else None
    if not isinstance(change, dict):
        return False
    former = change.get("before")
    if name == "resource_server":
        return former is not None and former not in servers
    return limits.organisations is not None and former not in limits.organisations


def seen_records(reach: "Reach") -> ColumnElement[bool]:
    """Return the condition of the audit records of what a caller may change.

    Args:
        reach: what is within its limits.
    """
    action, subject = AuditRecord.action, AuditRecord.subject
    few = reach.own_clients
    servers = {each: f"resource-server:{each}" for each in reach.own_servers}
    scopes = {name: f"scope:{name}" for name in reach.own_scopes}
    is_scope = and_(action.startswith("scope."), ~action.startswith("scope.programme_"))
    named_client = func.substr(subject, len(_OF_CLIENT) + 1)
    is_own_client = and_(
        reach.is_among(subject, few, before=_OF_CLIENT),
        subject.startswith(_OF_CLIENT),
        _is_own_client(reach, named_client),
    )
    # Cast: SQLite reads those of few clients by subject, and not all by action.
    stopping = cast(action, String) if reach.is_sqlite and few is not None else action
    return or_(
        and_(
            reach.is_among(subject, few),
            action.startswith("client."),
            _is_own_client(reach, subject),
        ),
        and_(
            action.startswith("resource_server.", autoescape=True),
            _is_own(reach, servers),
        ),
        and_(
            action.startswith("event_stream.", autoescape=True),
            _is_own(reach, servers),
        ),
        and_(
            action.startswith("registration.token_", autoescape=True),
            reach.is_own_token(subject),
        ),
        and_(is_scope, _is_own(reach, scopes)),
        and_(
            stopping.in_(STOP_ACTIONS),
            _is_own(reach, {key: key for key in (*scopes.values(), *servers.values())}),
        ),
        and_(stopping.in_(STOP_ACTIONS), is_own_client),
    )


def _is_own(reach: "Reach", keys: Mapping[str, str]) -> ColumnElement[bool]:
    """Return the condition of the records of scopes and resource servers since these are own.

    Args:
        reach: what is within the limits of the caller.
        keys: for each subject of a record, its key in ``foreign_until``.
    """
    subject, until = AuditRecord.subject, reach.foreign_until
    moved = {name: until[key] for name, key in keys.items() if key in until}
    later = (and_(subject == name, AuditRecord.id > last) for name, last in moved.items())
    return or_(subject.in_([name for name in keys if name not in moved]), *later)


def _is_own_client(reach: "Reach", client_id: _Column) -> ColumnElement[bool]:
    """Return the condition of the records of own clients since these are own."""
    # An earlier client of the same id may have been that of others.
    own = reach.is_own_client(client_id, AuditRecord.at)
    return and_(own, *(~each for each in _of_others_then(reach, client_id)))


def _of_others_then(reach: "Reach", client_id: _Column) -> Iterable[ColumnElement[bool]]:
    """Yield the conditions of which a record has one if its client had to do with others then.

    The client had scopes of others by this or a later record, or left another organisation by it,
    or has a scope that was of others.
    """
    later = select(_LATER.id).where(_LATER.subject == client_id, _LATER.id >= AuditRecord.id)
    limits = reach.limits
    if limits.organisations is not None:
        former = _former_organisation(is_sqlite=reach.is_sqlite)
        moved = former.not_in(sorted(limits.organisations))
        yield later.where(_LATER.action == "client.updated", moved).exists()
    if limits.resource_servers is None:
        return
    seen = is_one_of(_NAME.name, sorted(reach.seen_scopes), is_sqlite=reach.is_sqlite)
    others = select(_NAME.record_id).where(_NAME.record_id == _LATER.id, _NAME.kind == "scope")
    yield later.where(_LATER.action.startswith("client."), others.where(~seen).exists()).exists()
    held = select(_HELD.client_id).where(_HELD.client_id == client_id, _HELD.kind == "scope")
    for key, last in reach.foreign_until.items():
        kind, _, name = key.partition(":")
        if kind == "scope":
            yield and_(AuditRecord.id <= last, held.where(_HELD.name == name).exists())


def _former_organisation(*, is_sqlite: bool) -> ColumnElement[str]:
    """Return the organisation that a client left by a later record; null: it left none."""
    detail, path = _LATER.detail, ("diff", "organisation", "before")
    if is_sqlite:
        # It fails on a detail that is not JSON.
        former = func.json_extract(detail, f"$.{'.'.join(path)}")
        return case((func.json_valid(detail) == 1, former))
    # PostgreSQL stores an escaped NUL, and extracts nothing from JSON that has one.
    readable = cast(func.replace(cast(detail, Text), "\\u0000", "\\u0020"), JSON)
    return func.json_extract_path_text(readable, *path)
