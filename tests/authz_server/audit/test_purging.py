"""Purging stored audit records: what is older than its days goes, and nothing else."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from authz_server.audit.models import AuditRecord
from authz_server.audit.purging import purge_audit_records
from authz_server.audit.records import store_audit_record
from authz_server.audit.restored_database import find_missing_change
from authz_server.audit.seen_changes import SeenChanges
from authz_server.database.clock import ClockGuard, ClockMark, Uptime
from authz_server.tokens.purging import Purge
from authz_server.tokens.revocations import RevocationService
from keys.events import ignore
from support.received_events import ReceivedEvents
from support.roles import attached

KEEP_DAYS = 30
DAY = timedelta(days=1)
NOW = datetime.now(UTC).replace(microsecond=0)


def purge_of(database, now=NOW, *, days=KEEP_DAYS, guard=None, notify=ignore) -> Purge:
    return Purge(
        database=database,
        revocations=RevocationService(lambda: now, 3_600),
        purge_others=lambda _session, _now: 0,
        notify=notify,
        batch_rows=3,
        clock=lambda: now,
        guard=guard,
        audit_days=days,
    )


def record(database, *ages: timedelta) -> None:
    """Store a record of each age."""
    with database.transaction() as session:
        for number, age in enumerate(ages):
            store_audit_record(
                session, at=NOW - age, actor="a", action="client.changed", subject=f"c{number}"
            )


def ages(database) -> list[timedelta]:
    """Return the ages of the records that are left, the oldest first."""
    with database.reading() as session:
        return [NOW - at for at in session.scalars(select(AuditRecord.at).order_by(AuditRecord.at))]


@pytest.fixture
def database(database_url):
    with attached(database_url) as database:
        yield database


def test_older_records_go_in_batches_and_younger_ones_stay(database):
    second = timedelta(seconds=1)
    kept = [KEEP_DAYS * DAY, 29 * DAY, timedelta(0)]
    record(database, *(KEEP_DAYS * DAY + second * number for number in range(1, 9)), *kept)
    assert purge_of(database).run(lambda: True).rows == 3
    assert purge_of(database).run().rows == 5
    assert ages(database) == kept
    assert purge_of(database).run().rows == 0


def test_by_default_records_stay_for_ever(database):
    record(database, 10_000 * DAY, DAY)
    assert purge_of(database, days=0).run().rows == 0
    assert len(ages(database)) == 2


def test_the_oldest_go_first_whatever_their_order_in_the_table(database):
    record(database, 50 * DAY, 90 * DAY, DAY, 70 * DAY, 2 * DAY)
    with database.transaction() as session:
        assert purge_audit_records(session, NOW - KEEP_DAYS * DAY, 2) == 2
    assert ages(database) == [50 * DAY, 2 * DAY, DAY]


def test_the_latest_record_stays_however_old(database):
    record(database, 90 * DAY, 80 * DAY)
    assert purge_of(database).run().rows == 1
    assert ages(database) == [80 * DAY]


def test_the_change_stored_last_stays_though_another_one_has_a_later_time(database):
    """Nodes store changes at one time. A server that saw it does not miss it.

    SQLite would use its id for the next change.
    """
    later = 40 * DAY - timedelta(milliseconds=2)
    record(database, 60 * DAY, 50 * DAY, later, 40 * DAY)
    seen = SeenChanges()
    for kept in ([40 * DAY, later], [DAY]):
        with database.reading() as session:
            assert seen.find_lost(session) is None
        purge_of(database).run()
        assert ages(database) == kept
        with database.reading() as session:
            assert seen.find_lost(session) is None
            ids = session.scalars(select(AuditRecord.id)).all()
        assert max(ids) == (4 if len(kept) == 2 else 5)
        if len(kept) == 2:
            record(database, DAY)


def test_a_latest_record_without_a_time_stops_no_purge(sqlite_url):
    """SQLite stores any text as a time."""
    with attached(sqlite_url) as database:
        record(database, 60 * DAY, 50 * DAY, DAY)
        with database.transaction() as session:
            altered = "UPDATE audit_record SET at = '2026-13-45 25:00:00' WHERE id = 3"
            session.connection().exec_driver_sql(altered)
        assert purge_of(database).run().rows == 2


def test_several_purges_at_once_delete_everything_once(database):
    record(database, *(40 * DAY + number * DAY for number in range(100)), DAY)
    with ThreadPoolExecutor(4) as pool:
        purges = [pool.submit(purge_of(database).run) for _ in range(4)]
        assert sum(each.result().rows for each in purges) == 100
    assert ages(database) == [DAY]


@pytest.mark.parametrize("leap", [400 * DAY, -400 * DAY], ids=["ahead", "behind"])
def test_a_clock_that_leaps_deletes_no_record_that_is_younger(database, leap):
    """Case Q223."""
    uptime, received = Uptime("boot", 5_000_000_000), ReceivedEvents()
    with database.transaction() as session:
        session.get(ClockMark, 1).microseconds = int(NOW.timestamp() * 1_000_000)
        ClockGuard(lambda: NOW, lambda: uptime).check(session)
    kept = [29 * DAY, DAY]
    record(database, 31 * DAY, *kept)
    leapt = NOW + leap
    guard = ClockGuard(lambda: leapt, lambda: uptime)
    purged = purge_of(database, leapt, guard=guard, notify=received).run()
    assert not purged.trusted
    assert received.alarms() == ["clock.leapt"]
    assert ages(database)[-2:] == kept
    # The clock is put right.
    guard = ClockGuard(lambda: NOW, lambda: uptime)
    assert purge_of(database, guard=guard).run().trusted
    assert ages(database) == kept


@pytest.mark.parametrize("age", [timedelta(0), timedelta(minutes=9)])
def test_a_purged_change_is_not_missed_in_the_audit_file(database, tmp_path, age):
    """Case Q224: its record in the file may be later than the oldest row that is left."""
    file = tmp_path / "audit.jsonl"
    horizon = KEEP_DAYS * DAY
    record(database, horizon + timedelta(seconds=1), horizon - timedelta(seconds=1))
    at = NOW - horizon - timedelta(seconds=1) + age
    file.write_text(
        f'{{"time":"{at:%Y-%m-%dT%H:%M:%S}.900Z","event":"client.changed","actor":"a",'
        '"action":"client.changed","client_id":"c0"}\n'
    )
    with database.reading() as session:
        assert find_missing_change(session, str(file)) is None
    assert purge_of(database).run().rows == 1
    with database.reading() as session:
        assert find_missing_change(session, str(file)) is None


@pytest.mark.parametrize("member", ["event", "action", "client_id"])
@pytest.mark.parametrize("value", [[], {}, None, 5], ids=repr)
def test_a_line_that_is_no_change_is_not_missed(database, tmp_path, member, value):
    """Readiness compares the file with the database, and does not fail by such a line."""
    file = tmp_path / "audit.jsonl"
    record(database, DAY)
    line = {"time": f"{NOW:%Y-%m-%dT%H:%M:%S}.000Z", "event": "client.changed", "actor": "a"}
    line |= {"action": "client.changed", "client_id": "c9"} | {member: value}
    file.write_text(f"{json.dumps(line, separators=(',', ':'))}\n")
    with database.reading() as session:
        assert find_missing_change(session, str(file)) is None
