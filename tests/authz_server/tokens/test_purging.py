"""Purging a full database: others go on beside it, and it waits for them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import OperationalError

from authz_server.database.single_use import SingleUse, UsedValue
from authz_server.tokens import purging
from authz_server.tokens.models import RevokedToken
from authz_server.tokens.purging import Purge
from authz_server.tokens.revocations import RevocationService
from authz_server.waiting import run
from keys.events import ignore
from support.live_server import start_command
from support.roles import attached
from support.settings_file import write_settings

ROWS = 20_000
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def fill(database, rows: int = ROWS) -> None:
    with database.transaction() as session:
        session.execute(
            insert(RevokedToken),
            [
                {
                    "jti": f"jti-{number}",
                    "client_id": "c",
                    "revoked_at": LONG_AGO,
                    "expires_at": LONG_AGO,
                }
                for number in range(rows)
            ],
        )


def purge_of(database) -> Purge:
    return Purge(
        database=database,
        revocations=RevocationService(lambda: datetime.now(UTC), 3_600),
        purge_others=lambda _session, _now: 0,
        notify=ignore,
        batch_rows=500,
        clock=lambda: datetime.now(UTC),
        guard=None,
    )


def count(database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(RevokedToken))


def test_writers_do_not_wait_long_beside_a_purge(database_url):
    """Case Q227."""
    with attached(database_url) as database, attached(database_url) as other:
        fill(database)
        waits, done = [], threading.Event()

        def write() -> None:
            while not done.is_set():
                began = time.monotonic()
                with other.transaction() as session:
                    session.execute(text("UPDATE revision SET value = value + 1"))
                waits.append(time.monotonic() - began)
                time.sleep(0.02)

        writer = threading.Thread(target=write)
        writer.start()
        purged = purge_of(database).run().rows
        done.set()
        writer.join()
    assert purged == ROWS
    assert len(waits) >= 3, "the purge ended before anything was written beside it"
    assert max(waits) < 1.0


def test_several_purges_at_once_delete_everything_once(database_url):
    """Case Q227."""
    with attached(database_url) as database:
        fill(database, 3_000)
        with ThreadPoolExecutor(4) as pool:
            purges = [pool.submit(purge_of(database).run) for _ in range(4)]
            assert sum(each.result().rows for each in purges) == 3_000
        assert count(database) == 0


def test_two_purging_commands_at_once_both_end_well(database_url, tmp_path):
    """Case Q227."""
    config, log = write_settings(tmp_path, database_url, {}), tmp_path / "log"
    with attached(database_url) as database:
        fill(database)
        command = ("--config", str(config), "db", "purge")
        with log.open("ab") as output:
            commands = [start_command(*command, output=output) for _ in range(2)]
        assert [each.wait(100) for each in commands] == [0, 0], log.read_text()
        assert count(database) == 0


def test_a_purge_waits_for_a_writer_that_takes_long(sqlite_url):
    """Case Q227: longer than the time-out of a statement."""
    with attached(sqlite_url, statement_timeout_milliseconds=200) as database:
        fill(database, 10)
        with attached(sqlite_url) as other, other.transaction() as session:
            session.execute(text("UPDATE revision SET value = value + 1"))
            with ThreadPoolExecutor(1) as pool:
                purge = pool.submit(purge_of(database).run)
                time.sleep(1.0)
                assert not purge.done()
                session.commit()
                assert purge.result().rows == 10


def test_its_patience_ends(sqlite_url, monkeypatch):
    monkeypatch.setattr(purging, "PATIENCE_SECONDS", 0.3)
    with attached(sqlite_url, statement_timeout_milliseconds=50) as database:
        fill(database, 10)
        with attached(sqlite_url) as other, other.transaction() as session:
            session.execute(text("UPDATE revision SET value = value + 1"))
            with pytest.raises(OperationalError, match="locked"):
                purge_of(database).run()


def test_it_ends_early_when_the_server_stops(database_url):
    with attached(database_url) as database:
        fill(database, 2_000)
        assert 0 < purge_of(database).run(lambda: True).rows < 2_000


def test_what_ends_later_stays(database_url):
    with attached(database_url) as database:
        fill(database, 3)
        revocations = RevocationService(lambda: datetime.now(UTC), 3_600)
        with database.transaction() as session:
            revocations.revoke_token(
                session,
                jti="alive",
                client_id="c",
                expires_at=datetime.now(UTC) + timedelta(minutes=15),
                actor="c",
            )
        assert purge_of(database).run().rows == 3
        assert count(database) == 1


def test_used_values_are_purged_as_well(database_url):
    with attached(database_url) as database:
        single_use = SingleUse(database)
        for value, expires_at in ((b"old", LONG_AGO), (b"valid", datetime.now(UTC))):
            assert run(single_use.use("test", value, expires_at.timestamp()))
        assert purge_of(database).run().rows == 1
        assert not run(single_use.use("test", b"valid", 0))


def test_a_purge_that_is_stopped_leaves_the_other_used_values_to_the_next(database_url):
    with attached(database_url) as database:
        long_ago = int(LONG_AGO.timestamp())
        rows = [
            {"digest": sha256(b"%d" % number).digest(), "expires_at": long_ago}
            for number in range(1_200)
        ]
        with database.transaction() as session:
            session.execute(insert(UsedValue), rows)
        purge, stops = purge_of(database), iter([False, True])
        # SQLite has one writer at a time.
        part = 200 if database.connector is None else 500
        assert purge.run(lambda: next(stops)).rows == part
        assert purge.run().rows == 1_200 - part
        assert purge.run().rows == 0


def test_a_pause_follows_each_part_of_used_values_that_is_read(sqlite_url, monkeypatch):
    monkeypatch.setattr(purging, "_SQLITE_PAUSE_SECONDS", 0.5)
    with attached(sqlite_url) as database:
        valid = int(datetime.now(UTC).timestamp()) + 3_600
        rows = [
            {"digest": sha256(b"%d" % number).digest(), "expires_at": valid}
            for number in range(1_200)
        ]
        with database.transaction() as session:
            session.execute(insert(UsedValue), rows)
        began = time.monotonic()
        assert purge_of(database).run().rows == 0
        assert time.monotonic() - began >= 0.5


def test_a_pause_follows_each_batch_of_revocations(sqlite_url, monkeypatch):
    """Case Q227: a writer that waits gets its turn."""
    monkeypatch.setattr(purging, "_SQLITE_PAUSE_SECONDS", 0.1)
    with attached(sqlite_url) as database:
        fill(database, 1_000)
        began = time.monotonic()
        assert purge_of(database).run().rows == 1_000
        assert time.monotonic() - began >= 0.5
