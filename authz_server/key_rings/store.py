"""SQL store of the key rings: ``keys.store.KeyStore``.

Unlike a service, the store owns its transactions: a change of a ring is one compare-and-set.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from authz_server.audit.sink import store_audit_record
from authz_server.database.change_feed import record_change
from authz_server.database.clock import measure_clock_offset_seconds
from authz_server.database.errors import describe_failure, find_sentence
from authz_server.database.orm import Transaction
from authz_server.key_rings.event_log import EventFacts, append_event
from authz_server.key_rings.models import KeyRing, SigningKeyRow
from authz_server.key_rings.nodes import load_reports, write_reports
from keys.errors import StoreUnavailable
from keys.signing_key import KeyState, RingDefinition, RingSnapshot, SigningKey
from keys.store import KeyChange, NodeReport, RingChange


class SqlKeyStore:
    """Stores the rings in the database (``keys.store.KeyStore``).

    Args:
        transaction: opens a session that commits at its end, and may report its audit records then.
        reading: opens a session for reading, if different.
    """

    def __init__(self, transaction: Transaction, reading: Transaction | None = None) -> None:
        self._transaction = transaction
        self._reading = reading or transaction

    def load_rings(self, loaded_at: datetime) -> tuple[RingSnapshot, ...]:
        """Return every ring by name; StoreUnavailable if the database cannot be read."""
        with _store_errors(), self._reading() as session:
            # Rings first: an epoch read after its keys would allow a change based on old rows.
            rings = session.scalars(select(KeyRing).order_by(KeyRing.name)).all()
            rows = session.scalars(select(SigningKeyRow).order_by(SigningKeyRow.version)).all()
            return tuple(_to_snapshot(ring, rows, loaded_at) for ring in rings)

    def add_ring(self, definition: RingDefinition) -> None:
        """Add a ring without keys, unless the name exists."""
        with _store_errors():
            try:
                with self._transaction() as session:
                    if session.get(KeyRing, definition.name) is None:
                        session.add(_to_ring_row(definition))
            except IntegrityError:
                return  # another process added it in between

    def change_ring(
        self,
        ring: str,
        seen_epoch: int,
        changes: Sequence[KeyChange],
        ring_change: RingChange | None = None,
    ) -> bool:
        """Write the changes if the ring is still at ``seen_epoch``; else return False.

        Each change gets one event in the ring's chain and one audit record in the same transaction.
        """
        with _store_errors():
            return self._change_ring(ring, seen_epoch, changes, ring_change)

    def _change_ring(
        self,
        ring: str,
        seen_epoch: int,
        changes: Sequence[KeyChange],
        ring_change: RingChange | None,
    ) -> bool:
        try:
            with self._transaction() as session:
                happenings = [*_ring_happenings(ring_change), *_key_happenings(changes)]
                changed_at = max((each.at for each in happenings), default=None)
                event_hash = _advance_epoch(session, ring, seen_epoch, changed_at)
                if event_hash is None:
                    return False
                _write_keys(session, changes)
                _write_ring(session, ring, ring_change)
                _write_events(session, ring, seen_epoch + 1, event_hash, happenings)
                record_change(session, "key", ring)
        except IntegrityError:
            return False
        return True

    def load_nodes(self) -> tuple[NodeReport, ...]:
        """Return the latest report of every process and ring, by node and ring."""
        with _store_errors(), self._reading() as session:
            return load_reports(session)

    def report_node(self, node: str, epochs: Mapping[str, int], offset_seconds: float) -> None:
        """Store the epochs that this node holds, dated by the database's clock."""
        with _store_errors(), self._transaction() as session:
            write_reports(session, node, epochs, offset_seconds)

    def clock_offset_seconds(self) -> float:
        """Return the database's clock minus this machine's system clock; 0 for SQLite."""
        with _store_errors(), self._reading() as session:
            return measure_clock_offset_seconds(session)


@dataclass(frozen=True, slots=True)
class _Happening:
    """One event of a change; ``kid`` is None for an event of the ring itself."""

    kid: str | None
    event: str
    actor: str
    reason: str
    at: datetime


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        reason = find_sentence(error) or describe_failure(error)
        raise StoreUnavailable(f"the database cannot answer for the key rings: {reason}") from error
    except ValueError as error:
        raise StoreUnavailable(
            f"the key rings hold data that this version cannot read: {error}"
        ) from error


def _advance_epoch(
    session: Session, ring: str, seen_epoch: int, changed_at: datetime | None
) -> str | None:
    """Return the hash of the ring's latest event, or None if it is at another epoch."""
    event_hash: str | None = session.execute(
        update(KeyRing)
        .where(KeyRing.name == ring, KeyRing.epoch == seen_epoch)
        .values(
            epoch=KeyRing.epoch + 1,
            changed_at=KeyRing.changed_at if changed_at is None else changed_at,
        )
        .returning(KeyRing.event_hash)
    ).scalar_one_or_none()
    return event_hash


def _write_keys(session: Session, changes: Sequence[KeyChange]) -> None:
    # The formerly active key first, because the index permits only one active key.
    for change in sorted(changes, key=lambda change: change.key.state is KeyState.ACTIVE):
        session.merge(_to_key_row(change.key))
        session.flush()


def _write_ring(session: Session, ring: str, ring_change: RingChange | None) -> None:
    if ring_change is None:
        return
    wanted = ring_change.ring
    session.execute(
        update(KeyRing)
        .where(KeyRing.name == ring)
        .values(
            frozen=wanted.frozen,
            successor=wanted.successor,
            succeeded_at=wanted.succeeded_at,
            cautious_until=wanted.cautious_until,
            claimed_until=wanted.claimed_until,
            prepublication_seconds=wanted.prepublication_seconds,
            rotation_interval_seconds=wanted.rotation_interval_seconds,
        )
    )


def _ring_happenings(change: RingChange | None) -> Iterator[_Happening]:
    if change is not None:
        yield _Happening(None, change.event, change.actor, change.reason, change.at)


def _key_happenings(changes: Sequence[KeyChange]) -> Iterator[_Happening]:
    for change in changes:
        yield _Happening(change.key.kid, change.event, change.actor, change.reason, change.at)


def _write_events(
    session: Session, ring: str, epoch: int, event_hash: str, happenings: Sequence[_Happening]
) -> None:
    for each in happenings:
        event_hash = append_event(
            session,
            event_hash,
            EventFacts(
                ring=ring,
                epoch=epoch,
                kid=each.kid,
                event=each.event,
                actor=each.actor,
                reason=each.reason,
                at=each.at,
            ),
        )
        store_audit_record(
            session,
            at=each.at,
            actor=each.actor,
            action=each.event,
            subject=each.kid or ring,
            ring=ring,
            kid=each.kid or "",
            reason=each.reason,
            event_hash=event_hash,
        )
    session.execute(update(KeyRing).where(KeyRing.name == ring).values(event_hash=event_hash))


def _to_snapshot(ring: KeyRing, rows: Iterable[SigningKeyRow], loaded_at: datetime) -> RingSnapshot:
    return RingSnapshot(
        name=ring.name,
        alg=ring.alg,
        backend_uri=ring.backend_uri,
        maximum_lifetime_seconds=ring.maximum_lifetime_seconds,
        prepublication_seconds=ring.prepublication_seconds,
        rotation_interval_seconds=ring.rotation_interval_seconds,
        epoch=ring.epoch,
        keys=tuple(_to_signing_key(row) for row in rows if row.ring == ring.name),
        loaded_at=loaded_at,
        frozen=ring.frozen,
        successor=ring.successor,
        succeeded_at=ring.succeeded_at,
        cautious_until=ring.cautious_until,
        claimed_until=ring.claimed_until,
        changed_at=ring.changed_at,
    )


def _to_ring_row(definition: RingDefinition) -> KeyRing:
    return KeyRing(
        name=definition.name,
        alg=definition.alg,
        backend_uri=definition.backend_uri,
        epoch=0,
        maximum_lifetime_seconds=definition.maximum_lifetime_seconds,
        prepublication_seconds=definition.prepublication_seconds,
        rotation_interval_seconds=definition.rotation_interval_seconds,
    )


def _to_signing_key(row: SigningKeyRow) -> SigningKey:
    return SigningKey(
        ring=row.ring,
        version=row.version,
        kid=row.kid,
        alg=row.alg,
        public_jwk=row.public_jwk,
        state=KeyState(row.state),
        created_at=row.created_at,
        published_at=row.published_at,
        activate_at=row.activate_at,
        stopped_at=row.stopped_at,
        fenced_at=row.fenced_at,
        remove_after=row.remove_after,
        revoked_at=row.revoked_at,
        reason=row.reason,
    )


def _to_key_row(key: SigningKey) -> SigningKeyRow:
    return SigningKeyRow(
        kid=key.kid,
        ring=key.ring,
        version=key.version,
        alg=key.alg,
        public_jwk=dict(key.public_jwk),
        state=key.state.value,
        created_at=key.created_at,
        published_at=key.published_at,
        activate_at=key.activate_at,
        stopped_at=key.stopped_at,
        fenced_at=key.fenced_at,
        remove_after=key.remove_after,
        revoked_at=key.revoked_at,
        reason=key.reason,
    )
