"""The threads of a process that serves: what is slow holds up nothing that has to be fresh."""

import os
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from sqlalchemy.exc import OperationalError

from authz_server.audit.notifier import AuditUnavailable
from authz_server.audit.seen_changes import SeenChange
from authz_server.background_jobs import Job, Maintenance, RepeatedFailures
from authz_server.database.change_feed import ChangeFeed
from authz_server.settings import RevocationSettings
from authz_server.tokens.purging import Purge
from keys.errors import StoreUnavailable
from keys.events import ignore

TIMEOUT_SECONDS = 10.0


class Parts:
    """Everything that maintenance calls; each call is noted by its name."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.held, self.release = threading.Event(), threading.Event()
        self.broken: dict[str, Exception] = {}
        self.slow = ""

    def called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.broken:
            raise self.broken[name]
        if name == self.slow:
            self.held.set()
            self.release.wait(TIMEOUT_SECONDS)

    def await_calls(self, name: str, times: int) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        wanted = self.calls.count(name) + times
        while self.calls.count(name) < wanted:
            assert time.monotonic() < deadline, (name, self.calls[-50:])
            time.sleep(0.005)


def act(name: str):
    def call(self, *_values, **_options) -> dict | int:
        self.parts.called(name)
        return {}

    call.__name__ = name
    return call


class Feed(ChangeFeed):
    refresh_interval_seconds = 0.01

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    poll = act("poll")


class Rings:
    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    load = act("load")
    refresh = act("refresh")
    prove_candidates = act("prove_candidates")


class KeyJobs(Rings):
    report_node = act("report_node")
    tick = act("tick")
    withdraw = act("withdraw")
    write_readers = act("write_readers")
    end = act("end")


class Authenticator(Rings):
    take_last_used = act("take_last_used")


class Refusals(Rings):
    flush = act("flush")


class Checkpoints(Rings):
    seal_audit_records = act("seal_audit_records")
    write_audit_checkpoint = act("write_audit_checkpoint")
    close_audit_chain = act("close_audit_chain")


@pytest.fixture
def parts():
    return Parts()


@pytest.fixture
def maintenance(parts):
    maintenance = Maintenance(
        database=None,
        feed=Feed(parts),
        key_rings=Rings(parts),
        key_refresh_seconds=0.02,
        key_jobs=KeyJobs(parts),
        tick_seconds=0.02,
        authenticator=Authenticator(parts),
        refusals=Refusals(parts),
        purge=Purge(
            database=None,
            revocations=None,
            purge_others=None,
            notify=ignore,
            batch_rows=1,
            clock=None,
            guard=None,
        ),
        purge_seconds=RevocationSettings().sweep_interval_seconds,
        pepper_fingerprint="0123456789abcdef",
        checkpoints=Checkpoints(parts),
    )
    yield maintenance
    parts.release.set()
    maintenance.stop()


@pytest.mark.parametrize("slow", ["tick", "prove_candidates"])
def test_a_key_backend_that_hangs_holds_up_nothing_else(parts, maintenance, slow):
    """Case G80."""
    parts.slow = slow
    maintenance.start()
    assert parts.held.wait(TIMEOUT_SECONDS)
    for name in ("poll", "load"):
        parts.await_calls(name, 5)
    assert parts.calls.count(slow) == 1
    parts.release.set()
    parts.await_calls(slow, 3)


@pytest.mark.parametrize("fault", [AuditUnavailable("full"), OperationalError("", {}, OSError())])
def test_an_end_that_cannot_be_signed_is_not_an_alarm(parts, maintenance, fault, caplog):
    """The next process on the node signs it; at the end of one, its database may be gone."""
    caplog.set_level("INFO")
    parts.broken["close_audit_chain"] = fault
    maintenance.stop()
    assert parts.calls[-1] == "close_audit_chain"
    assert [record.levelname for record in caplog.records if "not signed" in record.msg] == ["INFO"]
    assert {record.levelname for record in caplog.records} == {"INFO"}


@pytest.mark.parametrize(
    "fault",
    [OperationalError("", None, Exception()), StoreUnavailable("away"), LookupError("a mistake")],
)
def test_whatever_fails_is_tried_again(parts, maintenance, fault, caplog):
    parts.broken = dict.fromkeys(("poll", "load", "tick", "report_node"), fault)
    maintenance.start()
    for name in parts.broken:
        parts.await_calls(name, 2)
    # Jobs that fail for one reason are logged once for all.
    assert any(f"{name} failed" in caplog.text for name in parts.broken)
    parts.broken = {}
    for name in ("poll", "load", "tick", "report_node"):
        parts.await_calls(name, 2)


def test_the_end_writes_down_what_is_held_even_if_something_fails(parts, maintenance):
    parts.broken = {"take_last_used": StoreUnavailable("away")}
    maintenance.start()
    parts.await_calls("poll", 1)
    maintenance.stop()
    for name in ("take_last_used", "flush", "end"):
        assert parts.calls.count(name) == 1


def test_held_work_stands_still_until_it_is_started_again(parts, maintenance):
    maintenance.start()
    parts.await_calls("poll", 2)
    maintenance.hold()
    calls = list(parts.calls)
    time.sleep(0.1)
    assert parts.calls == calls
    maintenance.start()
    parts.await_calls("poll", 2)


def test_each_process_starts_its_own_threads_once(parts, maintenance):
    def threads() -> list[str]:
        names = ("maintenance", "key-jobs")
        return sorted(each.name for each in threading.enumerate() if each.name in names)

    before = threads()
    for _ in range(3):
        maintenance.start()
    parts.await_calls("poll", 1)
    assert sorted([*before, "key-jobs", "maintenance"]) == threads()
    first = maintenance._stopped  # noqa: SLF001 - the fork leaves it to the parent
    maintenance._process_id = os.getpid() + 1  # noqa: SLF001 - as in a process that was forked
    maintenance.start()
    assert len(threads()) == len(before) + 4
    first.set()


def test_held_work_ends_and_the_next_start_begins_it(parts, maintenance):
    maintenance.start()
    parts.await_calls("poll", 1)
    running = list(maintenance._threads)  # noqa: SLF001 - they have no other name
    maintenance.hold()
    assert not any(thread.is_alive() for thread in running)
    polls = parts.calls.count("poll")
    maintenance.start()
    parts.await_calls("poll", polls + 1)
    assert "end" not in parts.calls


def test_a_failure_is_logged_with_its_reason_and_then_at_growing_intervals(caplog):
    """Case R242: two failures a second, for ten minutes."""
    caplog.set_level("INFO")
    seconds = [0.0]
    failures = RepeatedFailures(lambda: seconds[0])
    for _ in range(1_200):
        failures.note("poll", "password authentication failed")
        seconds[0] += 0.5
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "poll failed (1 times in a row): password authentication failed"
    assert 10 <= len(lines) <= 20
    assert "1" in lines[-1]
    failures.note("poll", "connection refused")
    assert caplog.records[-1].getMessage().endswith("(1201 times in a row): connection refused")
    failures.clear("poll")
    assert caplog.records[-1].getMessage() == "poll works again after 1201 failures"
    failures.clear("poll")
    failures.note("poll", "connection refused")
    assert caplog.records[-1].getMessage() == "poll failed (1 times in a row): connection refused"


def test_jobs_that_fail_for_one_reason_are_logged_once_for_all(caplog):
    caplog.set_level("INFO")
    seconds = [100.0]
    failures = RepeatedFailures(lambda: seconds[0])
    for _ in range(40):
        for job in ("poll", "tick"):
            failures.note(job, "connection refused")
        seconds[0] += 0.25
    lines = [record.getMessage() for record in caplog.records]
    times = [1, 9, 25]
    assert lines == [f"poll failed ({n} times in a row): connection refused" for n in times]
    failures.note("tick", "the database system is starting up")
    failures.clear("poll")
    failures.clear("tick")
    lines = [record.getMessage() for record in caplog.records[len(times) :]]
    assert lines == [
        "tick failed (41 times in a row): the database system is starting up",
        "poll works again after 40 failures",
        "tick works again after 41 failures",
    ]
    failures.note("tick", "connection refused")
    assert caplog.records[-1].getMessage().startswith("tick failed (1 times in a row)")


def test_only_withdrawals_are_followed_while_the_clock_has_leapt(parts, maintenance):
    """Case Q223."""
    trusted = threading.Event()
    maintenance.purge.clock_is_trusted = lambda: parts.called("look") or trusted.is_set()
    maintenance.start(keys_at_once=True)
    parts.await_calls("withdraw", 5)
    assert "tick" not in parts.calls
    trusted.set()
    parts.await_calls("tick", 2)


def test_jobs_drift_apart_as_far_as_they_are_told():
    steady, spread = Job(print, 60), Job(print, 60, spread=0.5)
    assert {steady.next_after(100) for _ in range(20)} == {160}
    moments = [spread.next_after(100) for _ in range(200)]
    assert 130 <= min(moments) < 140
    assert 150 < max(moments) <= 160


class LatestChange:
    """A file with a change that the database lacks."""

    def __init__(self) -> None:
        self.kept = 0

    def keep(self, session) -> SeenChange:
        assert session == "session"
        self.kept += 1
        return SeenChange(7, datetime(2026, 1, 1, tzinfo=UTC), "client.disabled", "payer")


class Reading:
    @contextmanager
    def reading(self):
        yield "session"


def test_a_lost_change_is_logged_without_a_probe_and_kept_at_the_end(maintenance, caplog):
    """Case Q224."""
    file = maintenance._latest_change = LatestChange()  # noqa: SLF001 - made without a file
    maintenance._database = Reading()  # noqa: SLF001
    maintenance.stop()
    assert file.kept == 1
    (message,) = [each for each in caplog.messages if "payer" in each]
    assert "The database lost client.disabled of payer at 2026-01-01T00:00:00Z" in message
    assert "authz-server revoke --before now" in message
