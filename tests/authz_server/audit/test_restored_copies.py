"""Rows of an older copy and records of the audit file: which change is missing."""

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete

from authz_server.audit import restored_database
from authz_server.audit.models import AuditRecord
from authz_server.audit.records import store_audit_record
from authz_server.audit.restored_database import (
    RestoredDatabaseError,
    RestoreReadiness,
    find_missing_change,
)
from authz_server.audit.seen_changes import SeenChanges
from authz_server.settings import AuditSettings
from support.roles import attached

NOW = datetime.now(UTC)


@pytest.fixture
def database(database_url):
    with attached(database_url) as database:
        yield database


def store(database, *rows):
    """Store rows of an age in hours, an action and a subject."""
    with database.transaction() as session:
        for age, action, subject in rows:
            at = NOW - timedelta(hours=age)
            store_audit_record(session, at=at, actor="o", action=action, subject=subject)


def written(tmp_path, *records):
    """Write records of the same; their subject is that of the row."""
    file = tmp_path / "audit.jsonl"
    lines = []
    for age, action, subject in records:
        at = NOW - timedelta(hours=age)
        line = {"time": f"{at.isoformat(timespec='milliseconds')[:23]}Z", "actor": "o"}
        if action.startswith("client."):
            line |= {"event": "client.changed", "action": action, "client_id": subject}
        else:
            kind, _, name = subject.partition(":")
            line |= {"event": action, "kind": kind, "subject": name}
        lines.append(json.dumps(line, separators=(",", ":")))
    file.write_text("\n".join([*lines, ""]))
    return str(file)


def missing(database, file):
    with database.reading() as session:
        found = find_missing_change(session, file)
    return found and (found.action, found.subject, round((NOW - found.at) / timedelta(hours=1), 2))


SET, LIFTED, CREATED, DISABLED = "stop.set", "stop.lifted", "client.created", "client.disabled"
X = "client:x"


@pytest.mark.parametrize(
    "before",
    [
        [],
        [(3, SET, X), (2.5, LIFTED, X)],
        [(9, CREATED, "x"), (3, SET, X), (2.5, LIFTED, X)],
    ],
    ids=["rotated", "whole", "with another"],
)
@pytest.mark.parametrize("ago", [1, 2.4], ids=["an hour later", "within minutes"])
def test_a_change_is_missed_though_the_same_was_made_before(database, tmp_path, before, ago):
    """Case Q224: the row of the earlier one is not its own, whether the file shows it or not."""
    store(database, (9, CREATED, "x"), (3, SET, X), (2.5, LIFTED, X))
    assert missing(database, written(tmp_path, *before)) is None
    assert missing(database, written(tmp_path, *before, (ago, SET, X))) == (SET, X, ago)


@pytest.mark.parametrize("ahead", [-20, -2, 0, 0.1, 2, 20])
def test_a_clock_that_is_off_hides_no_change_and_invents_none(database, tmp_path, ahead):
    """Case Q224: records are dated by the machine, rows by the database."""
    rows = [(59, CREATED, "x"), (50, SET, X), (49, LIFTED, X), (45, DISABLED, "x")]
    store(database, (100, "scope.added", "s"), *rows)
    records = [(age - ahead, *rest) for age, *rest in rows]
    assert missing(database, written(tmp_path, *records)) is None
    again = (44 - ahead, SET, X)
    found = missing(database, written(tmp_path, *records, again))
    assert found == (SET, X, pytest.approx(44 - ahead))


@pytest.mark.parametrize("ahead", [-2, 2])
def test_the_present_clocks_tell_how_far_they_differ(database, tmp_path, monkeypatch, ahead):
    """Case Q224: the rotated file shows no change that is made once."""
    # The clock of the process goes on after the module is imported.
    monkeypatch.setattr(
        restored_database,
        "read_database_time",
        lambda _: datetime.now(UTC) - timedelta(hours=ahead),
    )
    store(database, (9, CREATED, "x"), (3, DISABLED, "x"))
    assert missing(database, written(tmp_path, (3 - ahead, DISABLED, "x"))) is None
    assert missing(database, written(tmp_path, (3 - 2 * ahead, DISABLED, "x"))) is not None


def test_purged_rows_are_not_missed_where_the_clock_was_ahead(database, tmp_path):
    """Case Q224: their records are later than the oldest row that is left."""
    store(database, (720, DISABLED, "x"), (719, CREATED, "y"), (1, CREATED, "z"))
    file = written(tmp_path, (718, DISABLED, "x"), (717, CREATED, "y"), (1, CREATED, "z"))
    for oldest in (721, 719.5, 700):
        with database.transaction() as session:
            since = NOW - timedelta(hours=oldest)
            session.execute(delete(AuditRecord).where(AuditRecord.at < since))
        assert missing(database, file) is None


@pytest.mark.parametrize("shows", [True, False], ids=["own node", "another node"])
def test_the_revocation_of_everything_ends_the_alarm_where_the_clock_is_ahead(
    database, tmp_path, monkeypatch, shows
):
    """Case Q224: the lost change is dated later than the cut-off."""
    monkeypatch.setattr(restored_database, "read_database_time", lambda _: NOW - timedelta(hours=2))
    store(database, (9, CREATED, "x"))
    lost = [(7, CREATED, "x"), (3, DISABLED, "x")]
    assert missing(database, written(tmp_path, *lost)) == (DISABLED, "x", 3)
    store(database, (4, "cut_off.recorded", "all:"))
    records = [*lost, (2, "cut_off.recorded", "all:")] if shows else lost
    assert missing(database, written(tmp_path, *records)) is None


def test_a_long_line_and_exchanged_tokens_hide_no_change(database, tmp_path, monkeypatch):
    """Case Q224: neither is parsed."""
    monkeypatch.setattr(restored_database, "_BLOCK_BYTES", 100)
    monkeypatch.setattr(restored_database, "_MAXIMUM_LINE_BYTES", 1_000)
    store(database, (9, CREATED, "x"))
    file = written(tmp_path, (1, DISABLED, "x"))
    with Path(file).open("a") as opened:
        opened.write('{"actor":"' + "x" * 5_000 + '"}\n')
        opened.write('{"event":"token.exchanged","actor":""' * 100 + "}\n")
    assert missing(database, file) == (DISABLED, "x", 1)


@pytest.mark.parametrize("later", [False, True], ids=["at once", "while the first one reads"])
def test_probes_at_one_time_read_the_file_once(database, monkeypatch, later):
    """Each has the result of the one that reads."""
    store(database, (9, CREATED, "x"))
    looks, results, barrier = [], [], threading.Barrier(3 if later else 4)
    entered, goes_on = threading.Event(), threading.Event()

    def look(*_):
        looks.append(1)
        entered.set()
        goes_on.wait(10)
        raise RestoredDatabaseError("older")

    monkeypatch.setattr(restored_database, "require_not_restored", look)
    readiness = RestoreReadiness(database, AuditSettings(), lambda: 1.0)

    def probe(waits):
        if waits:
            barrier.wait(10)
        try:
            readiness.require()
            results.append("ready")
        except RestoredDatabaseError as error:
            results.append(str(error))

    probes = [threading.Thread(target=probe, args=(bool(n) or not later,)) for n in range(4)]
    for each in probes:
        each.start()
        if each is probes[0] and later:
            assert entered.wait(10)
    entered.wait(10)
    # Those that wait for the first one have no result yet.
    probes[-1].join(0.2)
    goes_on.set()
    for each in probes:
        each.join(10)
    assert (len(looks), results) == (1, ["older"] * 4)


#: Texts and bytes that SQLite stores as a time.
NO_TIMES = {
    "empty": "''",
    "word": "'x'",
    "bytes": "x'00'",
    "month": "'2020-13-45 25:00:00'",
    "hour": f"'{NOW:%Y-%m-%d} 25:00:00'",
}
no_times = pytest.mark.parametrize("value", NO_TIMES.values(), ids=NO_TIMES)


def give_time(database, value, *ids):
    for number in ids:
        altered = f"UPDATE audit_record SET at = {value} WHERE id = {number}"  # noqa: S608
        with database.transaction() as session:
            session.connection().exec_driver_sql(altered)


@no_times
def test_a_row_without_a_time_hides_no_change(sqlite_url, tmp_path, value):
    """Case Q224: SQLite stores any text and any bytes."""
    with attached(sqlite_url) as database:
        store(database, (9, CREATED, "x"), (8, CREATED, "y"), (7, "cut_off.recorded", "all:"))
        store(database, (6, "cut_off.recorded", "all:"))
        give_time(database, value, 2, 3)
        assert missing(database, written(tmp_path, (9, CREATED, "x"))) is None
        file = written(tmp_path, (8, CREATED, "y"), (1, DISABLED, "x"))
        assert missing(database, file) == (DISABLED, "x", 1)


@no_times
def test_a_latest_change_without_a_time_is_not_lost_and_hides_no_loss(sqlite_url, value):
    """The server goes on, and remembers the change before it."""
    with attached(sqlite_url) as database:
        store(database, *((age, CREATED, f"{age}") for age in (9, 8, 7)))
        earlier, later = SeenChanges(), SeenChanges()
        with database.reading() as session:
            assert earlier.find_lost(session) is None
        give_time(database, value, 3)
        with database.reading() as session:
            assert earlier.find_lost(session) is None
            assert later.find_lost(session) is None
        with database.transaction() as session:
            session.execute(delete(AuditRecord).where(AuditRecord.id == 2))
        with database.reading() as session:
            assert later.find_lost(session).subject == "8"


@pytest.mark.parametrize(
    ("age", "is_lost"), [(9, True), (1, False)], ids=["restored copy", "all rows deleted"]
)
def test_a_single_row_is_of_a_restored_copy_unless_it_is_later(sqlite_url, age, is_lost):
    """SQLite counts from 1 again after all rows were deleted."""
    with attached(sqlite_url) as database:
        store(database, (8, CREATED, "x"), (7, CREATED, "y"))
        seen = SeenChanges()
        with database.reading() as session:
            assert seen.find_lost(session) is None
        with database.transaction() as session:
            session.execute(delete(AuditRecord))
        store(database, (age, CREATED, "z"))
        with database.reading() as session:
            assert (seen.find_lost(session) is not None) is is_lost
