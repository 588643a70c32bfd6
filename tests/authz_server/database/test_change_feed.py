"""The change feed: every change once and in order, or everything anew; and no endless waiting."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import OperationalError

from authz_server.database.change_feed import (
    CHANGES_KEPT_MICROSECONDS,
    Change,
    ChangeFeed,
    ChangeSet,
    Revision,
    purge_changes,
    record_change,
)
from authz_server.database.orm import open_database
from authz_server.errors import OAuthError
from authz_server.settings import DatabaseSettings

EVERYTHING = ChangeSet(everything=True, subjects={})
PATIENT = {"statement_timeout_milliseconds": 30_000, "pool_timeout_milliseconds": 30_000}


@pytest.fixture
def database(database_url):
    settings = DatabaseSettings(url=database_url, pool_size=10, **PATIENT)
    database = open_database(settings)
    yield database
    database.close()


class Watcher:
    """A feed and the change sets that it handed out."""

    def __init__(self, reading, *, refresh=0.05, limit=60.0):
        self.feed = ChangeFeed(
            reading, refresh_interval_seconds=refresh, staleness_limit_seconds=limit
        )
        self.told = []
        self.feed.subscribe(lambda _session, changes: self.told.append(changes))

    def poll(self):
        """Poll; return what was handed out now."""
        before = len(self.told)
        self.feed.poll()
        return self.told[before:]


def change(database, *subjects, kind="client"):
    with database.transaction() as session:
        return [record_change(session, kind, subject) for subject in subjects][-1]


def some(**subjects):
    return [ChangeSet(everything=False, subjects=subjects)]


@pytest.fixture
def watcher(database):
    watcher = Watcher(database.reading)
    assert watcher.poll() == [EVERYTHING]
    return watcher


def test_the_first_poll_loads_everything_and_a_quiet_one_nothing(database):
    change(database, "a")
    watcher = Watcher(database.reading)
    assert watcher.feed.seen == -1
    assert watcher.poll() == [EVERYTHING]
    assert watcher.feed.seen == 1
    assert watcher.poll() == []


def test_later_changes_are_told_once_by_kind_and_in_order(database, watcher):
    """Case A15"""
    change(database, "b", "a", "b")
    change(database, "mapper/link", kind="scope")
    assert watcher.poll() == some(client=("b", "a"), scope=("mapper/link",))
    assert watcher.poll() == []


def test_a_change_that_was_rolled_back_never_was(database, watcher):
    with database.transaction() as session:
        record_change(session, "client", "a")
        session.rollback()
    assert watcher.poll() == []
    assert change(database, "b") == watcher.feed.seen + 1
    assert watcher.poll() == some(client=("b",))


def test_what_changed_can_be_read_when_it_is_told(database, watcher):
    seen = []
    watcher.feed.subscribe(lambda session, _: seen.append(session.scalar(select(Revision.value))))
    assert change(database, "a") == 1
    watcher.poll()
    assert seen == [1]


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_gap_means_everything(database, watcher, lost):
    change(database, "a", "b", "c")
    with database.transaction() as session:
        session.execute(delete(Change).where(Change.revision == lost))
    assert watcher.poll() == [EVERYTHING]
    change(database, "d")
    assert watcher.poll() == some(client=("d",))


def test_who_slept_through_a_purge_loads_everything(database, watcher):
    change(database, "a", "b")
    later = time.time_ns() // 1_000 + CHANGES_KEPT_MICROSECONDS + 60_000_000
    with database.transaction() as session:
        assert purge_changes(session, later, 100) == 2
    assert watcher.poll() == [EVERYTHING]
    assert watcher.feed.seen == 2


def test_a_purge_takes_what_is_old_and_no_more_than_a_batch(database):
    change(database, *"abcdef")
    now = time.time_ns() // 1_000
    old = now - CHANGES_KEPT_MICROSECONDS - 1_000_000
    with database.transaction() as session:
        session.execute(update(Change).where(Change.revision <= 4).values(at_microseconds=old))
    with database.transaction() as session:
        assert [purge_changes(session, now, 3) for _ in range(3)] == [3, 1, 0]
        assert session.scalar(select(func.count()).select_from(Change)) == 2


def test_a_database_restored_from_a_backup_is_loaded_anew(database, watcher, caplog):
    """Case Q224."""
    change(database, "a", "b")
    watcher.poll()
    with database.transaction() as session:
        session.execute(update(Revision).values(value=1))
        session.execute(delete(Change).where(Change.revision > 1))
    assert watcher.poll() == [EVERYTHING]
    assert watcher.feed.seen == 1
    assert "went back from change 2 to 1" in caplog.text


def test_a_subscriber_that_fails_is_told_again(database, watcher):
    failures = [ValueError("first"), None]

    def fail_once(_session, _changes):
        if failure := failures.pop(0):
            raise failure

    watcher.feed.subscribe(fail_once)
    change(database, "a")
    with pytest.raises(ValueError, match="first"):
        watcher.feed.poll()
    assert watcher.feed.seen == 0
    assert watcher.poll() == some(client=("a",))
    assert watcher.feed.seen == 1


def test_writers_at_once_leave_no_gap_and_readers_miss_nothing(database):
    """Case A15"""
    watchers = [Watcher(database.reading) for _ in range(2)]
    for watcher in watchers:
        watcher.feed.poll()
    written = threading.Event()

    def write(writer):
        return [change(database, f"{writer}-{number}") for number in range(12)]

    def watch(watcher):
        while not written.is_set():
            watcher.feed.poll()
        watcher.feed.poll()

    with ThreadPoolExecutor(8) as threads:
        watching = [threads.submit(watch, watcher) for watcher in watchers]
        revisions = [each for one in threads.map(write, range(5)) for each in one]
        written.set()
        for each in watching:
            each.result()
    assert sorted(revisions) == list(range(1, 61))
    for watcher in watchers:
        assert EVERYTHING not in watcher.told[1:]
        told = [name for each in watcher.told[1:] for name in each.subjects["client"]]
        assert len(told) == len(set(told)) == 60
        for writer in range(5):
            own = [name for name in told if name.startswith(f"{writer}-")]
            assert own == [f"{writer}-{number}" for number in range(12)]


class Fallible:
    """A way to a database that fails or hangs on command; counts the attempts."""

    def __init__(self, reading):
        self._reading = reading
        self.works, self.attempts = threading.Event(), 0
        self.hanging = False
        self.works.set()

    @contextmanager
    def __call__(self):
        self.attempts += 1
        if self.hanging:
            assert self.works.wait(30)
        if not self.works.is_set():
            raise OperationalError("SELECT", {}, Exception("away"))
        with self._reading() as session:
            yield session


@pytest.fixture
def fallible(database):
    return Fallible(database.reading)


def refused_after(ask):
    """Return after how many seconds `ask` was refused."""
    started = time.monotonic()
    with pytest.raises(OAuthError) as refused:
        ask()
    assert refused.value.reason == "temporarily_unavailable"
    return time.monotonic() - started


def test_memory_is_fresh_until_the_limit_and_then_read_again(fallible):
    watcher = Watcher(fallible, limit=1.0)
    assert not watcher.feed.is_fresh()
    assert watcher.feed.find_problem() == "changes are not read yet"
    watcher.feed.require_fresh()
    watcher.feed.require_fresh()
    assert fallible.attempts == 1
    assert not watcher.feed.find_problem()
    time.sleep(1.05)
    assert watcher.feed.find_problem() == "changes cannot be read"
    watcher.feed.require_fresh()
    assert fallible.attempts == 2


def test_a_database_that_is_away_is_asked_once_in_an_interval(fallible):
    """Case J109"""
    watcher = Watcher(fallible, refresh=1.0, limit=2.0)
    fallible.works.clear()
    with pytest.raises(OperationalError):
        watcher.feed.require_fresh()
    assert refused_after(watcher.feed.require_fresh) < 0.9
    assert refused_after(lambda: watcher.feed.require_seen(1)) < 0.9
    assert fallible.attempts == 1
    fallible.works.set()
    time.sleep(1.0)
    watcher.feed.require_fresh()
    assert watcher.feed.is_fresh()


@pytest.mark.parametrize("question", ["require_fresh", "require_seen"])
def test_nobody_queues_up_behind_a_database_that_hangs(fallible, question):
    """Case J114"""
    watcher = Watcher(fallible, limit=0.3)
    fallible.works.clear()
    fallible.hanging = True
    first = threading.Thread(target=watcher.feed.poll)
    first.start()
    ask = {
        "require_fresh": watcher.feed.require_fresh,
        "require_seen": lambda: watcher.feed.require_seen(1),
    }[question]
    try:
        with ThreadPoolExecutor(6) as threads:
            refusals = [threads.submit(refused_after, ask) for _ in range(6)]
            waited = [each.result() for each in refusals]
    finally:
        fallible.works.set()
        first.join()
    assert all(seconds < 3 for seconds in waited)
    assert fallible.attempts == 1
    assert watcher.feed.seen == 0


def test_a_revision_that_was_seen_needs_no_database(database, fallible):
    watcher = Watcher(fallible)
    watcher.feed.poll()
    revision = change(database, "a")
    watcher.feed.require_seen(revision)
    assert watcher.told == [EVERYTHING, *some(client=("a",))]
    fallible.works.clear()
    watcher.feed.require_seen(revision)
    assert fallible.attempts == 2


def test_a_fault_leaves_what_was_seen_and_later_polls_bring_the_rest(database, fallible):
    """Case J109"""
    watcher = Watcher(fallible)
    watcher.feed.poll()
    fallible.works.clear()
    change(database, "a")
    with pytest.raises(OperationalError):
        watcher.feed.poll()
    assert watcher.feed.seen == 0
    fallible.works.set()
    assert watcher.poll() == some(client=("a",))
