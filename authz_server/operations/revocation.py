"""Revoke many tokens at once: those of a client, a key or a scope, or all up to a time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import record_diff
from authz_server.clients.identifiers import normalised
from authz_server.errors import InvalidChangeError
from authz_server.operations.approvals import NotedAct, note_act
from authz_server.operations.key_names import find_kid
from authz_server.settings.approvals import REVOKE_TOKENS
from authz_server.tokens.revocations import CutOffKind

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOff:
    """Tokens that are revoked together.

    Attributes:
        kind: ``client``, ``key``, ``scope`` or ``all``.
        subject: a client id, a ``kid``, a canonical scope name; empty for ``all``.
        issued_up_to: the time up to which they were issued; None in a plan: the time of its
            execution.
    """

    kind: CutOffKind
    subject: str
    issued_up_to: datetime | None


def plan_cut_off(
    services: Services, kind: CutOffKind, subject: str = "", *, before: datetime | None = None
) -> CutOff:
    """Return what :func:`revoke_tokens` would revoke, without a change.

    Args:
        services: the parts of the server.
        kind: ``client``, ``key``, ``scope`` or ``all``.
        subject: a client id, the beginning of a ``kid``, or a scope in any spelling.
        before: the time up to which the tokens were issued; None: now.

    Raises:
        InvalidChangeError: ``before`` lies in the future.
        NotFoundError: there is no such client or scope.
        OrderRefusedError: no key's id begins with the subject, or several do.
    """
    with services.transaction() as session:
        return _plan(services, session, kind, subject, before)


def revoke_tokens(  # noqa: PLR0913 - the facts of one cut-off, by name
    services: Services,
    kind: CutOffKind,
    subject: str = "",
    *,
    actor: str,
    before: datetime | None = None,
    reason: str = "",
) -> CutOff:
    """Revoke every token of a subject issued up to a time, effective on every node at once.

    Args:
        services: the parts of the server.
        kind: ``client``, ``key``, ``scope`` or ``all``.
        subject: a client id, the beginning of a ``kid``, or a scope in any spelling.
        actor: the recorded actor.
        before: the time up to which the tokens were issued; None: now.
        reason: the recorded reason.

    Raises:
        InvalidChangeError: ``before`` lies in the future.
        NotFoundError: there is no such client or scope.
        OrderRefusedError: no key's id begins with the subject, or several do.
    """
    with services.transaction() as session:
        planned = _plan(services, session, kind, subject, before)
        # What has passed by the clock of this machine alone is meant to end now.
        if before is None or before >= services.corrected_clock():
            instant = services.revocations.issue_times.find_latest(session)
        else:
            instant = before
        services.revocations.cut_off(
            session,
            kind=kind,
            subject=planned.subject,
            instant_microseconds=(instant - _EPOCH) // _MICROSECOND,
            actor=actor,
            reason=reason,
        )
        note_revocation(services, session, kind, planned.subject, actor=actor, reason=reason)
    return CutOff(kind=kind, subject=planned.subject, issued_up_to=instant)


def note_revocation(  # noqa: PLR0913 - the facts of an act, by name
    services: Services,
    session: Session,
    kind: str,
    subject: str,
    *,
    actor: str,
    reason: str = "",
) -> None:
    """Record what is revoked; it may need the confirmation of a second person.

    Args:
        services: the parts of the server.
        session: the transaction.
        kind: the kind of the subject: ``token``, or that of a cut-off.
        subject: a ``jti``, or the subject of a cut-off.
        actor: the recorded actor.
        reason: the recorded reason.
    """
    diff = {"revoked": {"before": None, "after": subject or kind}}
    record_diff(session, diff)
    act = NotedAct(
        acts=(REVOKE_TOKENS,),
        actor=actor,
        operation="revoke_tokens",
        arguments={"kind": kind, "subject": subject},
        subject=f"tokens:{kind}:{subject}",
        diff=diff,
        reason=reason,
    )
    note_act(services, session, act)


def _plan(
    services: Services, session: Session, kind: CutOffKind, subject: str, before: datetime | None
) -> CutOff:
    if before is not None and lies_ahead(services, before):
        raise InvalidChangeError("--before lies in the future; only what is issued can be revoked.")
    return CutOff(
        kind=kind,
        subject=_canonical_subject(services, session, kind, subject),
        issued_up_to=before,
    )


def lies_ahead(services: Services, before: datetime) -> bool:
    """Return whether a time has passed neither by the database's clock nor by this machine's."""
    return before > max(services.corrected_clock(), services.clock())


def _canonical_subject(services: Services, session: Session, kind: CutOffKind, subject: str) -> str:
    match kind:
        case "client":
            return find_client_id(services, session, subject)
        case "scope":
            return services.scopes.get_scope(session, subject).name
        case "key":
            return find_kid(services.key_store.load_rings(services.clock()), subject)
        case "all":
            return ""


def find_client_id(
    services: Services, session: Session, client_id: str, *, kind: str | None = None
) -> str:
    """Return the id of a client, or of one that publishes its metadata at this address.

    Args:
        services: the parts of the server.
        session: the transaction.
        client_id: the id; an address in any spelling.
        kind: the kind of row that it must have; None: any.

    Raises:
        NotFoundError: there is no such client.
    """
    documents, address = services.client_documents, normalised(client_id)
    if documents is not None and documents.find(address) is not None:
        return address
    return services.clients.get_client(session, client_id, kind=kind).id
