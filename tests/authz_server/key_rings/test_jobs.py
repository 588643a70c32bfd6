"""Background jobs of a worker for the key rings."""

import os
from datetime import timedelta

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import SQLAlchemyError

from authz_server.database.orm import open_database
from authz_server.key_rings.consumers import JwksReaders, load_jwks_readers
from authz_server.key_rings.jobs import KeyJobs, purge_key_rows, tick_interval_seconds
from authz_server.key_rings.models import KeyNode
from authz_server.key_rings.private_keys import SqlEncryptedKeyStorage
from authz_server.key_rings.store import SqlKeyStore
from authz_server.settings import DatabaseSettings, RingSettings, Secret
from authz_server.settings.keys import DAY_SECONDS, KeySettings
from keys.backends.local.sql import LocalBackend
from keys.errors import ClockOffError, InvariantError, StoreUnavailable
from keys.events import Alarm
from keys.lifecycle.first_key import create_first_key
from keys.lifecycle.rotator import Rotator
from keys.lifecycle.state import ALL_PERMISSIONS, RingRules
from keys.lifecycle.timing import Timing
from keys.ring import KeyRings
from keys.signing_key import KeyState, RingDefinition
from support.clock import FakeClock
from support.received_events import ReceivedEvents

KEY_ENCRYPTION_KEY = bytes(range(32))
RINGS = {
    name: RingDefinition(name=name, alg="ES256", backend_uri="sql://") for name in ("one", "two")
}


class Process:
    """A process that serves: its rings, and a count of seconds under the test's control."""

    def __init__(self, database) -> None:
        self.clock, self.seconds = FakeClock(), 0.0
        self.database = database
        self.store = SqlKeyStore(database.transaction, database.reading)
        storage = SqlEncryptedKeyStorage(database.transaction, database.reading)
        backends = {"sql://": LocalBackend(storage, KEY_ENCRYPTION_KEY, self.clock)}
        for definition in RINGS.values():
            create_first_key(
                self.store, backends["sql://"], definition, clock=self.clock, actor="test"
            )
        self.rings = KeyRings(self.store, backends, self.clock, "one")
        self.readers = JwksReaders(self.clock)
        self.received = ReceivedEvents()
        self.duties = KeyJobs(
            database=database,
            store=self.store,
            key_rings=self.rings,
            rotator=Rotator(
                store=self.store,
                backends=backends,
                rules={
                    name: RingRules(definition=definition, permissions=ALL_PERMISSIONS)
                    for name, definition in RINGS.items()
                },
                clock=self.clock,
                timing=Timing(),
            ),
            readers=self.readers,
            notify=self.received,
            clock=self.clock,
            snapshot_lifetime_seconds=120,
            monotonic=lambda: self.seconds,
        )

    def reports(self) -> dict[str, int]:
        return {each.ring: each.epoch_seen for each in self.store.load_nodes()}


@pytest.fixture
def database(database_url):
    database = open_database(DatabaseSettings(url=database_url))
    yield database
    database.close()


@pytest.fixture
def process(database):
    return Process(database)


def forget_reports(database) -> None:
    with database.transaction() as session:
        session.execute(text("DELETE FROM key_node"))


def test_an_epoch_is_reported_when_it_is_new_and_every_half_minute(process, database):
    process.duties.report_node()
    assert process.reports() == {}  # nothing was read yet, so nothing is signed
    process.rings.refresh()
    process.duties.report_node()
    assert process.reports() == {"one": 1, "two": 1}
    forget_reports(database)
    process.seconds = 29
    process.duties.report_node()
    assert process.reports() == {}
    process.seconds = 30
    process.duties.report_node()
    assert process.reports() == {"one": 1, "two": 1}
    process.duties.tick()
    process.duties.report_node()
    assert process.reports() == {"one": 1, "two": 1}  # what it has, not what there is
    process.rings.refresh()
    process.duties.report_node()
    assert process.reports() == {"one": 2, "two": 2}


def set_offset(process, seconds: float) -> None:
    process.store.clock_offset_seconds = lambda: seconds
    process.rings.refresh()


def test_the_offset_of_the_clock_is_reported_with_it(process):
    set_offset(process, -1.5)
    process.duties.report_node()
    assert {each.clock_offset_seconds for each in process.store.load_nodes()} == {-1.5}


def test_a_clock_that_turns_wrong_or_right_is_reported_at_once(process):
    for offset in (0.0, 3_600.0, 0.0):
        set_offset(process, offset)
        process.duties.report_node()
        assert {each.clock_offset_seconds for each in process.store.load_nodes()} == {offset}
    set_offset(process, 1.0)
    process.duties.report_node()
    assert {each.clock_offset_seconds for each in process.store.load_nodes()} == {0.0}


def test_no_ring_is_moved_on_while_the_clock_is_off(process):
    set_offset(process, -3_600.0)
    process.clock.advance(30 * DAY_SECONDS + 60)
    with pytest.raises(ClockOffError):
        process.duties.tick()
    assert {ring.epoch for ring in process.store.load_rings(process.clock())} == {1}
    assert process.received.all == [], "the rotator raises the alarm, and once"


def test_withdrawals_of_every_ring_are_followed_while_the_clock_is_off(process):
    """The first ring with the clock's failure does not keep the others from theirs."""
    rotator, followed = process.duties._rotator, []  # noqa: SLF001
    withdraw = rotator.withdraw

    def follow(ring: str, actor: str) -> None:
        followed.append(ring)
        withdraw(ring, actor)

    rotator.withdraw = follow
    set_offset(process, -3_600.0)
    with pytest.raises(ClockOffError):
        process.duties.tick()
    assert sorted(followed) == ["one", "two"]
    assert process.received.all == []


def test_each_process_has_a_name_of_its_own(process):
    name = process.duties.node
    assert name == process.duties.node
    assert name.split("/")[-2] == str(os.getpid())
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, process.duties.node.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        other = pipe.read()
    assert other.split("/")[-2] == str(child)
    assert process.duties.node == name


def test_what_ends_is_waited_for_by_nobody(process, database):
    process.rings.refresh()
    process.duties.report_node()
    process.readers.note("PyJWT/2", "192.0.2.1")
    process.duties.end()
    assert process.reports() == {}
    with database.reading() as session:
        assert len(load_jwks_readers(session, process.clock())) == 1


def test_all_rings_are_moved_on(process):
    process.rings.refresh()
    process.duties.tick()
    for ring in process.store.load_rings(process.clock()):
        standby = ring.keys[1]
        assert standby.activate_at is not None
    process.clock.advance(30 * DAY_SECONDS + 60)
    process.rings.refresh()
    process.duties.tick()
    for ring in process.store.load_rings(process.clock()):
        assert [key.state for key in ring.keys] == [
            KeyState.RETIRED,
            KeyState.ACTIVE,
            KeyState.PUBLISHED,
        ]


@pytest.mark.parametrize(
    ("error", "alarms"),
    [
        (StoreUnavailable("others keep changing it"), []),
        (InvariantError(4, "two keys"), [("rotation.failed", "one", "invariant 4: two keys")]),
    ],
)
def test_a_ring_that_cannot_be_moved_on_holds_up_no_other(process, error, alarms):
    process.rings.refresh()
    rotator = process.duties._rotator  # noqa: SLF001
    whole = rotator.tick

    def tick(ring: str, *, actor: str):
        if ring == "one":
            raise error
        return whole(ring, actor=actor)

    rotator.tick = tick
    with pytest.raises(type(error)):
        process.duties.tick()
    epochs = {ring.name: ring.epoch for ring in process.store.load_rings(process.clock())}
    assert epochs == {"one": 1, "two": 2}
    assert process.received.all == [Alarm(*alarm) for alarm in alarms]


def test_readers_that_cannot_be_written_down_are_kept(process, database):
    process.readers.note("PyJWT/2", "192.0.2.1")
    with database.transaction() as session:
        session.execute(text("ALTER TABLE jwks_reader RENAME TO elsewhere"))
    with pytest.raises(SQLAlchemyError):
        process.duties.write_readers()
    with database.transaction() as session:
        session.execute(text("ALTER TABLE elsewhere RENAME TO jwks_reader"))
    process.duties.write_readers()
    with database.reading() as session:
        assert len(load_jwks_readers(session, process.clock())) == 1


def test_nodes_and_readers_of_the_past_are_swept(process, database):
    process.rings.refresh()
    process.duties.report_node()
    process.store.report_node("long-gone/1", {"one": 1}, 0.0)
    with database.transaction() as session:
        then = KeyNode.seen_at < process.clock() + timedelta(days=1)
        session.execute(
            update(KeyNode)
            .where(KeyNode.node == "long-gone/1", then)
            .values(seen_at=process.clock() - timedelta(days=3_650))
        )
    process.readers.note("old", "192.0.2.1")
    process.duties.write_readers()
    process.clock.advance(31 * DAY_SECONDS)
    with database.transaction() as session:
        assert purge_key_rows(session, process.clock()) == 2
    assert {each.node for each in process.store.load_nodes()} == {process.duties.node}


@pytest.mark.parametrize(
    ("prepublication", "interval", "expected"),
    [(0, 30 * DAY_SECONDS, 60), (300, 3_600, 30), (5, 5, 1), (100, 120, 10)],
)
def test_rings_are_moved_on_more_often_where_their_durations_are_short(
    prepublication, interval, expected
):
    short = RingSettings(prepublication_seconds=prepublication, rotation_interval_seconds=interval)
    settings = KeySettings(
        key_encryption_key=Secret(KEY_ENCRYPTION_KEY),
        rings={"es256": RingSettings(), "short": short},
        jwks_maximum_age_seconds=1,
        refresh_interval_seconds=1,
        clock_tolerance_seconds=1,
    )
    assert tick_interval_seconds(settings) == expected


def test_a_clock_that_moves_by_more_than_a_second_is_reported_at_once(process):
    """Cut-offs include the lead of a node."""
    for offset in (0.0, -1.5, 1.5):
        set_offset(process, offset)
        process.duties.report_node()
        assert {each.clock_offset_seconds for each in process.store.load_nodes()} == {offset}
