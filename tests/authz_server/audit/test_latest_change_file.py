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


@pytest.fixture(autouse=True)
def _identity(monkeypatch):
    """The identity of each database."""
    monkeypatch.setattr(latest_change, "read_identity", lambda _: "one")
    identity = select(literal("one"), *latest_change._STORED.selected_columns[1:])  # noqa: SLF001
    where = latest_change._STORED.whereclause  # noqa: SLF001
    monkeypatch.setattr(latest_change, "_STORED", identity.where(where))


@pytest.fixture
def database(database_url):
    """A database with three changes."""
    with attached(database_url) as database:
        store(database, "a", "b", "c")
        yield database


@pytest.fixture
def sqlite_database(sqlite_url):
    """As `database`."""
    with attached(sqlite_url) as database:
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


def test_a_lost_change_is_noticed_while_the_file_cannot_be_read(database, kept, path, monkeypatch):
    monkeypatch.setattr(latest_change, "_LOCK_SECONDS", 0.05)
    keep(database, kept)
    with database.transaction() as session:
        session.execute(delete(AuditRecord).where(AuditRecord.subject == "c"))
    store(database, *"defg")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert lost(database, kept).subject == "c"
        assert keep(database, kept) is None
    assert subject_in(path) == "c"


def test_a_lost_change_that_another_process_kept_meanwhile_stays(database, kept, path, monkeypatch):
    keep(database, kept)
    with database.transaction() as session:
        session.execute(delete(AuditRecord).where(AuditRecord.subject == "c"))
    store(database, *"defg")
    monkeypatch.setattr(kept, "_read", lambda: None)
    assert keep(database, kept).subject == "c"
    assert subject_in(path) == "c"


def test_a_lower_number_is_kept_only_if_the_change_is_gone(sqlite_database, kept, path):
    """SQLite stores any text as a time: of the latest change it cannot be read."""
    keep(sqlite_database, kept)
    for change in ("UPDATE audit_record SET at = 'x' WHERE id = 3", "DELETE FROM audit_record"):
        with sqlite_database.transaction() as session:
            session.connection().exec_driver_sql(change)
        assert keep(sqlite_database, kept) is None
        assert subject_in(path) == "c"
    store(sqlite_database, "d")
    assert keep(sqlite_database, kept) is None
    assert subject_in(path) == "d"


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


@pytest.mark.parametrize("target", ["missing", "empty"])
def test_a_symbolic_link_is_not_followed(database, kept, path, target, caplog):
    """Who can write the folder may name any file by it."""
    path.with_name("empty").touch()
    path.symlink_to(path.with_name(target))
    assert keep(database, kept) is None
    assert not path.with_name("missing").exists()
    assert not path.with_name("empty").stat().st_size
    (message,) = caplog.messages
    assert "it is a symbolic link" in message
    with pytest.raises(SettingsError, match="it is a symbolic link"):
        require_latest_change(AuditSettings(latest_change_file=str(path)))


def test_root_gives_away_only_a_file_that_it_has_made(database, kept, path, monkeypatch):
    given = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _, *owner: given.append(owner))
    path.touch()
    keep(database, kept)
    assert (subject_in(path), given) == ("c", [])
    path.unlink()
    keep(database, kept)
    folder = path.parent.stat()
    assert (subject_in(path), given) == ("c", [(folder.st_uid, folder.st_gid)])


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
