"""The chain of key events: what was changed, removed, added or cut off by hand is found."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import delete, select, text, update

from authz_server.audit.events import KeyChanged
from authz_server.audit.models import AuditRecord
from authz_server.audit.records import report_changes
from authz_server.database.orm import Database, open_database
from authz_server.key_rings.event_log import load_events, verify_event_chain
from authz_server.key_rings.models import KeyEvent, KeyRing, SigningKeyRow
from authz_server.key_rings.store import SqlKeyStore
from authz_server.settings import DatabaseSettings
from keys.errors import StoreUnavailable
from keys.signing_key import KeyState, RingDefinition
from keys.store import KeyChange, RingChange
from keys.testing import MOMENT, KeyStoreContract

RING = RingDefinition(name="es256", alg="ES256", backend_uri="sql://")
OTHER = replace(RING, name="rs256", alg="RS256")
RACERS = 20


@pytest.fixture
def database(database_url):
    database = open_database(DatabaseSettings(url=database_url))
    yield database
    database.close()


@pytest.fixture
def store(database):
    return SqlKeyStore(database.transaction, database.reading)


def change_of(ring: str, version: int, event: str = "key.published") -> KeyChange:
    change = KeyStoreContract().change(version, KeyState.PUBLISHED)
    key = replace(change.key, ring=ring, kid=f"{ring}-{version}")
    return replace(change, key=key, event=event, reason="né à midi ✓")


def change_ring(store: SqlKeyStore, ring: str, version: int, *, with_ring_event=False) -> None:
    (held,) = (each for each in store.load_rings(MOMENT) if each.name == ring)
    event = RingChange(
        ring=replace(held, frozen=True),
        event="ring.frozen",
        actor="operator:ada",
        reason="an audit",
        at=MOMENT + timedelta(microseconds=version),
    )
    made = store.change_ring(
        ring, held.epoch, [change_of(ring, version)], event if with_ring_event else None
    )
    assert made


@pytest.fixture
def history(store, database) -> None:
    """Two rings with events in turn; some are the ring's own."""
    for ring in (RING, OTHER):
        store.add_ring(ring)
    for version in range(1, 4):
        change_ring(store, "es256", version, with_ring_event=version == 2)
        change_ring(store, "rs256", version)
    with database.reading() as session:
        assert verify_event_chain(session, "es256") is None
        assert verify_event_chain(session, "rs256") is None


def broken(database: Database, ring: str = "es256") -> int | None:
    with database.reading() as session:
        return verify_event_chain(session, ring)


def event_ids(database: Database, ring: str = "es256") -> list[int]:
    with database.reading() as session:
        return [event.id for event in load_events(session, ring)]


def edit(database: Database, statement) -> None:
    with database.transaction() as session:
        session.execute(statement)


@pytest.mark.usefixtures("history")
def test_the_events_of_a_change_stand_in_its_order(database):
    with database.reading() as session:
        events = load_events(session, "es256")
        found = [(event.epoch, event.event, event.kid) for event in events]
    assert found == [
        (1, "key.published", "es256-1"),
        (2, "ring.frozen", None),
        (2, "key.published", "es256-2"),
        (3, "key.published", "es256-3"),
    ]
    assert [event.previous_hash for event in events] == ["", *(each.hash for each in events[:-1])]
    assert len({event.hash for event in events}) == 4


@pytest.mark.usefixtures("history")
def test_an_event_edited_by_hand_is_found(database):
    ids = event_ids(database)
    for edited in (
        {"epoch": 9},
        {"kid": "es256-3"},
        {"kid": None},
        {"event": "key.revoked"},
        {"actor": "operator:eve"},
        {"reason": ""},
        {"at": MOMENT + timedelta(microseconds=1)},
        {"previous_hash": "0" * 64},
        {"hash": "0" * 64},
        {"ring": "rs256"},
    ):
        with database.transaction() as session:
            session.execute(update(KeyEvent).where(KeyEvent.id == ids[2]).values(**edited))
            # One that was moved to another ring is missed where it was.
            found = ids[3] if "ring" in edited else ids[2]
            assert verify_event_chain(session, "es256") == found, edited
            session.rollback()
    assert broken(database) is None


@pytest.mark.usefixtures("history")
def test_an_event_removed_is_found(database):
    ids = event_ids(database)
    edit(database, delete(KeyEvent).where(KeyEvent.id == ids[1]))
    assert broken(database) == ids[2]


@pytest.mark.usefixtures("history")
def test_an_event_added_is_found(database):
    with database.transaction() as session:
        last = load_events(session, "es256")[-1]
        session.add(
            KeyEvent(
                ring="es256",
                epoch=last.epoch,
                kid=last.kid,
                event="key.destroyed",
                actor=last.actor,
                reason="never happened",
                at=last.at,
                previous_hash=last.hash,
                hash="f" * 64,
            )
        )
    added = event_ids(database)[-1]
    assert broken(database) == added


@pytest.mark.usefixtures("history")
def test_an_end_cut_off_is_found(database):
    ids = event_ids(database)
    edit(database, delete(KeyEvent).where(KeyEvent.id == ids[3]))
    assert broken(database) == ids[2]
    edit(database, delete(KeyEvent).where(KeyEvent.ring == "es256"))
    assert broken(database) == 0
    assert broken(database, "rs256") is None


def test_a_ring_without_events_is_whole(database, store):
    store.add_ring(RING)
    assert broken(database) is None
    assert broken(database, "no-such-ring") is None


def test_each_event_has_one_record_which_is_told_with_its_hash(database):
    told = []

    @contextmanager
    def transaction():
        with database.transaction() as session:
            yield session
        report_changes(told.append, session)

    store = SqlKeyStore(transaction, database.reading)
    store.add_ring(RING)
    change_ring(store, "es256", 1, with_ring_event=True)
    assert not store.change_ring("es256", 0, [change_of("es256", 2)])
    with database.reading() as session:
        events = load_events(session, "es256")
        records = session.scalars(select(AuditRecord).order_by(AuditRecord.id)).all()
    assert [(record.action, record.subject, record.actor) for record in records] == [
        ("ring.frozen", "es256", "operator:ada"),
        ("key.published", "es256-1", "contract"),
    ]
    assert told == [
        KeyChanged(
            actor=event.actor,
            action=event.event,
            ring="es256",
            kid=event.kid or "",
            reason=event.reason,
            event_hash=event.hash,
        )
        for event in events
    ]


def test_a_change_is_made_even_if_nobody_can_be_told(database):
    @contextmanager
    def transaction():
        with database.transaction() as session:
            yield session
        raise LookupError

    SqlKeyStore(database.transaction).add_ring(RING)
    store = SqlKeyStore(transaction, database.reading)
    with pytest.raises(LookupError):
        change_ring(store, "es256", 1)
    assert store.load_rings(MOMENT)[0].epoch == 1


def attempt(store: SqlKeyStore, racer: int, rounds: int) -> int:
    """Try to publish a key of one's own at each epoch in turn; return how often that was won."""
    won = 0
    for epoch in range(rounds):
        change = change_of("es256", 1 + racer * rounds + epoch)
        while True:
            try:
                won += store.change_ring("es256", epoch, [change])
                break
            except StoreUnavailable:  # so many at once may wait too long for the row
                continue
    return won


def race(url: str, racer: int, rounds: int, start, outcomes) -> None:
    database = open_database(DatabaseSettings(url=url))
    store = SqlKeyStore(database.transaction, database.reading)
    store.load_rings(MOMENT)
    start.wait(60)
    outcomes.put(attempt(store, racer, rounds))
    database.close()


def test_of_twenty_threads_at_one_epoch_one_wins(database, store):
    """Case G77."""
    store.add_ring(RING)
    start = Barrier(RACERS)

    def run(racer: int) -> int:
        start.wait(20)
        return attempt(store, racer, 1)

    with ThreadPoolExecutor(RACERS) as pool:
        won = list(pool.map(run, range(RACERS)))
    assert sorted(won) == [0] * (RACERS - 1) + [1]
    assert (store.load_rings(MOMENT)[0].epoch, len(event_ids(database))) == (1, 1)
    assert broken(database) is None


def test_of_several_processes_at_each_epoch_one_wins(database, store, database_url):
    """Case G77."""
    store.add_ring(RING)
    context = multiprocessing.get_context("spawn")
    processes, rounds = 2, 15
    start, outcomes = context.Barrier(processes), context.Queue()
    racers = [
        context.Process(target=race, args=(database_url, racer, rounds, start, outcomes))
        for racer in range(processes)
    ]
    for racer in racers:
        racer.start()
    won = [outcomes.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join(20)
    assert sum(won) == rounds
    ring = store.load_rings(MOMENT)[0]
    assert (ring.epoch, len(ring.keys), len(event_ids(database))) == (rounds, rounds, rounds)
    assert broken(database) is None


@pytest.mark.usefixtures("history")
def test_what_the_tables_hold_is_what_was_hashed(database):
    """Text that databases might bring into another form comes back as it was."""
    with database.reading() as session:
        reasons = {event.reason for event in load_events(session, "es256")}
        hashes = {row.event_hash for row in session.scalars(select(KeyRing))}
        kinds = session.scalars(select(SigningKeyRow.kid)).all()
        latest = session.execute(
            text("SELECT hash FROM key_event WHERE ring = 'es256' ORDER BY id DESC")
        ).scalar()
    assert reasons == {"né à midi ✓", "an audit"}
    assert latest in hashes
    assert len(kinds) == 6
