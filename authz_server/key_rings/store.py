"""SQL store of the key rings: ``keys.store.KeyStore``.

Unlike a service, the store owns its transactions: a change of a ring is one compare-and-set.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from authz_server.audit.records import store_audit_record
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

#: The fields that have columns of the same names.
_KEY_FIELDS = tuple(field.name for field in fields(SigningKey))
_RING_FIELDS = tuple(
    field.name for field in fields(RingSnapshot) if field.name not in {"keys", "loaded_at"}
)


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
                        session.add(KeyRing(**asdict(definition), epoch=0))
            except IntegrityError:
                return  # another process added it in between

    @_store_errors()
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
        events = [
            *_events_of(ring, seen_epoch + 1, [] if ring_change is None else [ring_change]),
            *_events_of(ring, seen_epoch + 1, changes),
        ]
        changed_at = max((event.at for event in events), default=None)
        try:
            with self._transaction() as session:
                event_hash = _advance_epoch(session, ring, seen_epoch, changed_at)
                if event_hash is None:
                    return False
                _write_keys(session, changes)
                if ring_change is not None:
                    _update_ring(session, ring, ring_change.values())
                _write_events(session, ring, event_hash, events)
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


def _update_ring(session: Session, ring: str, values: Mapping[str, Any]) -> None:
    session.execute(update(KeyRing).where(KeyRing.name == ring).values(**values))


def _events_of(
    ring: str, epoch: int, changes: Sequence[KeyChange | RingChange]
) -> Iterator[EventFacts]:
    for change in changes:
        yield EventFacts(
            ring=ring,
            epoch=epoch,
            kid=change.key.kid if isinstance(change, KeyChange) else None,
            event=change.event,
            actor=change.actor,
            reason=change.reason,
            at=change.at,
        )


def _write_events(
    session: Session, ring: str, event_hash: str, events: Sequence[EventFacts]
) -> None:
    for event in events:
        event_hash = append_event(session, event_hash, event)
        store_audit_record(
            session,
            at=event.at,
            actor=event.actor,
            action=event.event,
            subject=event.kid or ring,
            ring=ring,
            kid=event.kid or "",
            reason=event.reason,
            event_hash=event_hash,
        )
    _update_ring(session, ring, {"event_hash": event_hash})


def _to_snapshot(ring: KeyRing, rows: Iterable[SigningKeyRow], loaded_at: datetime) -> RingSnapshot:
    keys = tuple(_to_signing_key(row) for row in rows if row.ring == ring.name)
    values = {name: getattr(ring, name) for name in _RING_FIELDS}
    return RingSnapshot(**values, keys=keys, loaded_at=loaded_at)


def _to_signing_key(row: SigningKeyRow) -> SigningKey:
    values = {name: getattr(row, name) for name in _KEY_FIELDS}
    return SigningKey(**values | {"state": KeyState(row.state)})


def _to_key_row(key: SigningKey) -> SigningKeyRow:
    values = {name: getattr(key, name) for name in _KEY_FIELDS}
    return SigningKeyRow(**values | {"state": key.state.value, "public_jwk": dict(key.public_jwk)})
