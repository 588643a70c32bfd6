"""The use of scopes: which client asked for one, and which was seen at introspection.

A process remembers each pair of client and scopes in memory. A background job stores them once a
minute, so that neither a token nor an introspection waits for it.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, Session, mapped_column

from authz_server.database.orm import Base, Transaction, insert_into

if TYPE_CHECKING:
    from authz_server.audit.events import TokenIssued

UseKind = Literal["asked", "seen"]
#: The largest number of pairs in memory; further ones wait for the next minute.
_MAXIMUM_PAIRS = 20_000


class ScopeUse(Base):
    """The first and the latest minute in which a client used a scope.

    Attributes:
        client_id: the client; the row outlives it.
        scope: the scope as its tokens spell it.
        kind: ``asked`` (a token was issued) or ``seen`` (a token was introspected).
        first_at: when it was first stored.
        last_at: when it was last stored.
    """

    __tablename__ = "scope_use"
    __table_args__ = (
        Index(None, "last_at"),
        Index(None, "scope", "last_at"),
        Index(None, "first_at"),
    )

    client_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    scope: Mapped[str] = mapped_column(String(200), primary_key=True)
    kind: Mapped[str] = mapped_column(String(10), primary_key=True)
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]


class ScopeUses:
    """The uses that a process has not stored yet; thread-safe, as a set's methods are."""

    def __init__(self) -> None:
        self._pairs: dict[UseKind, set[tuple[str, str]]] = {"asked": set(), "seen": set()}

    def note_asked(self, event: "TokenIssued") -> None:
        """Remember that a client was issued a token with its scopes."""
        pairs = self._pairs["asked"]
        if len(pairs) < _MAXIMUM_PAIRS:
            pairs.add((event.client_id, event.scope))

    def note_seen(self, client_id: str, scope: str) -> None:
        """Remember that a token of the client was introspected with these scopes."""
        pairs = self._pairs["seen"]
        if len(pairs) < _MAXIMUM_PAIRS:
            pairs.add((client_id, scope))

    def store(self, transaction: Transaction, now: datetime) -> None:
        """Store the uses and forget them.

        Args:
            transaction: opens a transaction.
            now: the present time.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer; the uses are lost.
        """
        rows = {
            (client_id, scope, kind)
            for kind in self._pairs
            for client_id, scopes in self._take(kind)
            for scope in scopes.split(" ")
            if scope
        }
        if rows:
            with transaction() as session:
                _upsert(session, rows, now)

    def _take(self, kind: UseKind) -> Iterable[tuple[str, str]]:
        taken, self._pairs[kind] = self._pairs[kind], set()
        return taken


def _upsert(session: Session, rows: Iterable[tuple[str, str, str]], now: datetime) -> None:
    statement = insert_into(session, ScopeUse)
    statement = statement.on_conflict_do_update(
        index_elements=[ScopeUse.client_id, ScopeUse.scope, ScopeUse.kind],
        set_={"last_at": statement.excluded.last_at},
    )
    # The same order on every node prevents deadlocks.
    session.execute(
        statement,
        [
            {"client_id": client_id, "scope": scope, "kind": kind, "first_at": now, "last_at": now}
            for client_id, scope, kind in sorted(rows)
        ],
    )
