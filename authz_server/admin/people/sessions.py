"""Sessions of operators: rows that every worker and node reads."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, TypeAlias

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from authz_server.admin.people import cookies
from authz_server.assembly.server import ServerServices
from authz_server.audit.operator_events import (
    OperatorSessionEnded,
    OperatorSignedIn,
    OperatorSignedOut,
)
from authz_server.database.operator_sessions import OperatorSession, person_id
from authz_server.database.operators import Operator
from authz_server.operations.group_roles import GroupRoles
from authz_server.operations.operators import find_grants
from authz_server.operations.permissions import Caller, Grant

#: Why a session counts no longer.
EndReason: TypeAlias = Literal["idle", "absolute", "disabled", "no_role"]
_PURPOSE = "session"
#: The time of the last request is written at most this often.
_LONGEST_UNSEEN = timedelta(seconds=60)
_UNSEEN_PART = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person who has logged in.

    Attributes:
        name: the name in records.
        method: how.
        operator_id: the id of a local operator; empty for a person of the provider.
        issuer: the provider; empty for a local operator.
        subject: the ``sub`` of the provider.
        groups: the groups that the provider named.
        amr: the authentication methods (RFC 8176).
        authenticated_at: when they last proved who they are; None: that is not known.
    """

    name: str
    method: Literal["passkey", "openid"]
    operator_id: str = ""
    issuer: str = ""
    subject: str = ""
    groups: tuple[str, ...] = ()
    amr: tuple[str, ...] = ()
    authenticated_at: datetime | None = None

    @property
    def key(self) -> str:
        """The id in records."""
        return person_id(self.operator_id, self.subject)


class RequestFacts(NamedTuple):
    """The fields of a request in records."""

    request_id: str
    source_address: str


@dataclass(frozen=True, slots=True)
class Found:
    """The session of a request, and its operator as the server knows them now."""

    session: OperatorSession
    caller: Caller


class Sessions:
    """Begins, finds and ends sessions.

    Args:
        services: the parts of the server.
        roles: the roles of the provider's groups.
    """

    def __init__(self, services: ServerServices, roles: GroupRoles) -> None:
        self._services = services
        self.roles = roles
        settings = services.settings.admin
        self._issuer = settings.openid.issuer
        self._idle = timedelta(seconds=settings.sessions.idle_seconds)
        self._absolute = timedelta(seconds=settings.sessions.absolute_seconds)
        self._fresh = timedelta(seconds=settings.sessions.fresh_seconds)
        self._unseen = min(_LONGEST_UNSEEN, self._idle / _UNSEEN_PART)

    def begin(
        self,
        transaction: Session,
        person: Person,
        *,
        before: bytes | None,
        facts: RequestFacts,
    ) -> bytes:
        """Begin a session; return its id, which is always a new one.

        Args:
            transaction: the transaction of the log-in.
            person: who has logged in.
            before: the id in the browser's cookie; its session ends. One of the same person is
                confirmed: its absolute end stays.
            facts: the fields of the request in records.
        """
        now = self._services.corrected_clock()
        created_at, again = now, False
        if before is not None:
            digest = cookies.digest_of(_PURPOSE, before)
            replaced = transaction.get(OperatorSession, digest, with_for_update=True)
            if replaced is not None:
                again = is_of(replaced, person) and self._reason_to_end(replaced, now) is None
                created_at = replaced.created_at if again else now
                transaction.delete(replaced)
        made = cookies.new_id()
        transaction.add(
            OperatorSession(
                digest=cookies.digest_of(_PURPOSE, made),
                operator_id=person.operator_id,
                issuer=person.issuer,
                subject=person.subject,
                name=person.name,
                groups=list(person.groups),
                amr=list(person.amr),
                created_at=created_at,
                seen_at=now,
                authenticated_at=person.authenticated_at,
                expires_at=min(created_at + self._absolute, now + self._idle),
            )
        )
        transaction.flush()
        # A session that cannot be recorded is not begun.
        self._services.notify(
            OperatorSignedIn(
                operator=person.name,
                operator_id=person.key,
                method=person.method,
                again=again,
                issuer=person.issuer,
                groups=person.groups,
                amr=person.amr,
                request_id=facts.request_id,
                source_address=facts.source_address,
            )
        )
        return made

    def find(self, id_: bytes | None) -> Found | None:
        """Return the session of a cookie, if it counts; one that counts no longer is ended."""
        if id_ is None:
            return None
        digest, now = cookies.digest_of(_PURPOSE, id_), self._services.corrected_clock()
        with self._services.database.reading() as reading:
            session = reading.get(OperatorSession, digest)
            if session is None:
                return None
            reason = self._reason_to_end(session, now)
            grants = None if reason else self._grants_of(reading, session)
        if reason is None and grants is None:
            reason = "disabled" if session.operator_id else "no_role"
        if reason is not None or grants is None:
            self._end(session, reason or "disabled")
            return None
        if now - session.seen_at >= self._unseen:
            self._touch(session, now)
        return Found(session, self._caller(session, grants, now))

    def end(self, id_: bytes | None, facts: RequestFacts) -> None:
        """End the session of a cookie, because its operator logs out."""
        found = self.find(id_)
        if found is None:
            return
        session = found.session
        with self._services.database.transaction() as transaction:
            if _delete(transaction, session.digest):
                self._services.notify(
                    OperatorSignedOut(
                        operator=session.name,
                        operator_id=found.caller.operator_id,
                        request_id=facts.request_id,
                        source_address=facts.source_address,
                    )
                )

    def _grants_of(self, reading: Session, session: OperatorSession) -> tuple[Grant, ...] | None:
        """Return the present grants; None: the person may not log in."""
        if not session.operator_id:
            same = session.issuer == self._issuer
            return (self.roles.grants(session.groups) or None) if same else None
        operator = reading.get(Operator, session.operator_id)
        if operator is None or not operator.enabled:
            return None
        return find_grants(self._services, reading, session.operator_id)

    def _caller(self, session: OperatorSession, grants: tuple[Grant, ...], now: datetime) -> Caller:
        since = session.authenticated_at
        return Caller(
            name=session.name,
            kind="operator",
            way="console",
            grants=grants,
            operator_id=session.person,
            authenticated_at=None if since is None or now - since > self._fresh else since,
            groups=tuple(session.groups),
        )

    def _reason_to_end(self, session: OperatorSession, now: datetime) -> EndReason | None:
        if now >= session.created_at + self._absolute:
            return "absolute"
        return "idle" if now >= session.seen_at + self._idle else None

    def _touch(self, session: OperatorSession, now: datetime) -> None:
        expires_at = min(session.created_at + self._absolute, now + self._idle)
        with self._services.database.transaction() as transaction:
            transaction.execute(
                update(OperatorSession)
                .where(OperatorSession.digest == session.digest, OperatorSession.seen_at < now)
                .values(seen_at=now, expires_at=expires_at)
            )

    def _end(self, session: OperatorSession, reason: EndReason) -> None:
        with self._services.database.transaction() as transaction:
            if _delete(transaction, session.digest):
                self._services.notify(
                    OperatorSessionEnded(
                        operator=session.name,
                        operator_id=session.person,
                        reason=reason,
                    )
                )


def is_of(session: OperatorSession, person: Person) -> bool:
    """Return whether a session is that of a person."""
    return (session.operator_id, session.issuer, session.subject) == (
        person.operator_id,
        person.issuer,
        person.subject,
    )


def _delete(transaction: Session, digest: bytes) -> bool:
    """Delete a session; return False if another request has just done so."""
    gone = delete(OperatorSession).where(OperatorSession.digest == digest)
    return transaction.execute(gone.returning(OperatorSession.digest)).first() is not None
