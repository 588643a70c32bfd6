"""The file that keeps the latest stored change: who writes it, and what cannot be used."""

import fcntl
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from sqlalchemy import delete, literal, select

from authz_server.audit import latest_change
from authz_server.audit.latest_change import LatestChangeFile, require_latest_change
from authz_server.audit.models import AuditRecord
from authz_server.audit.records import store_audit_record
from authz_server.settings import AuditSettings, SettingsError
from support.roles import attached

NOW = datetime.now(UTC)
_numbers = count(1)


@pytest.fixture
def database(database_url, monkeypatch):
    """A database with the identity `one` and three changes."""
    monkeypatch.setattr(latest_change, "read_identity", lambda _: "one")
    identity = select(literal("one"), *latest_change._STORED.selected_columns[1:])  # noqa: SLF001
    where = latest_change._STORED.whereclause  # noqa: SLF001
    monkeypatch.setattr(latest_change, "_STORED", identity.where(where))
    with attached(database_url) as database:
        store(database, "a", "b", "c")
        yield database


@pytest.fixture
def path(tmp_path):
    return tmp_path / "latest-change.json"


@pytest.fixture
def kept(path):
    return LatestChangeFile(str(path))


def store(database, *subjects, action="client.disabled"):
    with database.transaction() as session:
        for subject in subjects:
            # Later than each one before it, whose id SQLite may use again.
            at = NOW + timedelta(milliseconds=next(_numbers))
            store_audit_record(session, at=at, actor="o", action=action, subject=subject)


def keep(database, file, *committed):
    with database.reading() as session:
        return file.keep(session, committed)


def lost(database, file):
    with database.reading() as session:
        return file.find_lost(session)


def subject_in(path):
    return json.loads(path.read_text())["subject"]


def test_the_latest_change_is_kept_for_its_owner_alone(database, kept, path):
    assert lost(database, kept) is None
    assert not path.exists()
    assert keep(database, kept) is None
    assert subject_in(path) == "c"
    assert path.stat().st_mode & 0o777 == 0o600
    store(database, "d")
    # As another process does, and a node with a file of its own.
    other = path.with_name("other.json")
    for each in (path, other):
        assert keep(database, LatestChangeFile(str(each))) is None
        assert subject_in(each) == "d"


def test_it_is_on_disk_before_the_change_is_acknowledged(database, kept, path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.append(subject_in(path)))
    database.on_commit = kept.keep
    store(database, "d")
    assert synced == ["d"]
    with database.transaction() as session:
        assert kept.keep(session) is None
    assert synced == ["d"], "nothing changed"


def test_a_lost_change_stays_in_the_file(database, kept, path):
    keep(database, kept)
    with database.transaction() as session:
        session.execute(delete(AuditRecord).where(AuditRecord.subject == "c"))
    store(database, *"defg")
    assert lost(database, kept).subject == "c"
    assert keep(database, kept).subject == "c"
    assert subject_in(path) == "c"


def test_a_later_change_of_another_process_stays(database, path):
    """Threads that keep their own changes, in any order."""
    store(database, *(f"{number}" for number in range(40)))
    with database.reading() as session:
        changes = session.scalars(select(AuditRecord).order_by(AuditRecord.id)).all()
    barrier = threading.Barrier(8)

    def work(number):
        barrier.wait(10)
        for change in changes[number::8]:
            keep(database, LatestChangeFile(str(path)), change)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert subject_in(path) == changes[-1].subject


@pytest.mark.parametrize("content", [b"", b"\0" * 4_096, b'{"database":"one","id":3,"at":"2026-'])
def test_what_a_crash_cut_off_counts_as_none(database, kept, path, content):
    path.write_bytes(content)
    assert lost(database, kept) is None
    assert keep(database, kept) is None
    assert subject_in(path) == "c"


def test_a_file_with_something_else_is_left_alone(database, kept, path, caplog):
    path.write_text('issuer = "https://authz.example"\n')
    for _ in range(3):
        assert keep(database, kept) is None
        assert lost(database, kept) is None
    assert path.read_text() == 'issuer = "https://authz.example"\n'
    (message,) = caplog.messages
    assert "it holds something else" in message
    with pytest.raises(SettingsError, match="it holds something else"):
        require_latest_change(AuditSettings(latest_change_file=str(path)))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_holds_up_nothing(database, kept, path, make, caplog):
    make(path)
    assert keep(database, kept) is None
    assert lost(database, kept) is None
    assert len(caplog.messages) == 1
    with pytest.raises(SettingsError, match=r"audit\.latest_change_file"):
        require_latest_change(AuditSettings(latest_change_file=str(path)))


def test_a_process_that_holds_the_lock_holds_up_nothing(database, kept, path, caplog, monkeypatch):
    monkeypatch.setattr(latest_change, "_LOCK_SECONDS", 0.05)
    keep(database, kept)
    store(database, "d")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert keep(database, kept) is None
        assert subject_in(path) == "c"
    (message,) = caplog.messages
    assert "another process locks it" in message
    assert keep(database, kept) is None
    assert subject_in(path) == "d"


def test_a_file_that_works_again_is_reported_again_when_it_fails(database, kept, path, caplog):
    for subject in "de":
        path.unlink(missing_ok=True)
        path.mkdir()
        keep(database, kept)
        path.rmdir()
        keep(database, kept)
        store(database, subject)
    assert len(caplog.messages) == 2


def test_long_subjects_fit(database, kept, path):
    store(database, "\u0c95\n" * 150)
    assert keep(database, kept) is None
    assert lost(database, kept) is None
    assert path.stat().st_size == 4_096


def test_an_absent_file_that_can_be_made_is_no_problem(path, tmp_path):
    for usable in (str(path), ""):
        require_latest_change(AuditSettings(latest_change_file=usable))
    assert not path.exists()
    missing = str(tmp_path / "missing" / "file")
    with pytest.raises(SettingsError, match="No such file or directory"):
        require_latest_change(AuditSettings(latest_change_file=missing))


def test_a_cut_off_of_all_tokens_lets_it_go_back(database, kept, path):
    keep(database, kept)
    with database.transaction() as session:
        session.execute(delete(AuditRecord).where(AuditRecord.subject == "c"))
    with database.transaction() as session:
        store_audit_record(
            session,
            at=NOW + timedelta(minutes=1),
            actor="o",
            action="cut_off.recorded",
            subject="all:",
        )
    assert lost(database, kept) is None
    assert keep(database, kept) is None
    assert subject_in(path) == "all:"
