"""The audit sink: one line per event, and no acknowledgement without it."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_server.audit.events import (
    ClientChanged,
    CutOffRecorded,
    KeyChanged,
    RegistrationChanged,
    ScopeChanged,
    TokenIssued,
    TokenRefused,
    TokenRevoked,
)
from authz_server.audit.notifier import AuditUnavailable
from authz_server.audit.operator_events import OperatorChanged
from authz_server.audit.sink import AuditSink
from support.source_tree import ROOT

AT = datetime(2030, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)
HOSTILE = [
    "a\r\nb",
    "\x1b[31mred\x1b[0m",
    "a\u2028b\u2029c",
    "next\x85line \x0b\x0c\x1c\x1d\x1e",
    '"}\n{"event":"forged"}',
    "\x00\x7f\x9b31m",
    "\U0001f600 é",
    "\ud800 lone",
]


@contextlib.contextmanager
def limited_file_size(size):
    """No file of this process grows beyond the size."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, handler)


class Seconds:
    """A monotonic clock that a test turns."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def seconds():
    return Seconds()


@pytest.fixture
def sink(path, seconds):
    sink = AuditSink(str(path), lambda: AT, monotonic=seconds)
    yield sink
    sink.close()


def test_the_record_of_a_change_is_on_the_disk_before_it_is_acknowledged(sink, path, monkeypatch):
    """Case Q228."""
    synced, sync = [], os.fdatasync

    def fdatasync(descriptor):
        synced.append(os.fstat(descriptor).st_size)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    changes = (
        TokenRevoked(actor="a", client_id="a", jti="j"),
        CutOffRecorded(actor="a", kind="all", subject="", instant_microseconds=1, reason=""),
        ClientChanged(actor="a", action="client.disabled", client_id="a"),
        ScopeChanged(actor="a", action="scope.added", scope="s"),
        KeyChanged(actor="a", action="key.revoked", ring="r", kid="k"),
        OperatorChanged(actor="a", action="operator.disabled", operator="ada"),
        RegistrationChanged(actor="a", action="registration.token_ended", subject="t"),
    )
    sizes = []
    for change in changes:
        sink.write(change)
        sizes.append(path.stat().st_size)
    assert synced == sizes
    sink.write(issued())
    assert len(synced) == len(changes)


def test_the_changes_of_one_transaction_are_brought_to_the_disk_together(
    sink, path, seconds, monkeypatch
):
    """Also those in a file that is rotated meanwhile; a later change is synchronised again."""
    change = TokenRevoked(actor="a", client_id="a", jti="j")
    synced, sync = [], os.fdatasync

    def fdatasync(descriptor):
        synced.append((os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with sink.one_sync():
        sink.write(change)
        sink.write(change)
        assert synced == []
        old = path.rename(path.with_suffix(".old")).stat()
        seconds.now += 2
        sink.write(change)
    new = path.stat()
    assert synced == [(old.st_ino, old.st_size), (new.st_ino, new.st_size)]
    sink.write(change)
    assert len(synced) == 3


def test_a_change_that_cannot_be_brought_to_the_disk_is_not_recorded(sink, monkeypatch):
    """Case Q228."""

    def refuse(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(AuditUnavailable) as caught:
        sink.write(TokenRevoked(actor="a", client_id="a", jti="j"))
    assert "No space" in caught.value.detail


def issued(**changes):
    values = {
        "client_id": "mapper-client",
        "grant_type": "client_credentials",
        "authentication_method": "client_secret_post",
        "scope": "mapper/link",
        "audience": ("https://mapper.example",),
        "jti": "a-jti",
        "kid": "a-kid",
        "backend_request_id": "",
        "token_format": "jwt",
        "expires_at": 1_900_000_000,
        "request_id": "a-request",
        "message_id": "a-message",
        "source_address": "192.0.2.7",
    }
    return TokenIssued(**values | changes)


def records(path):
    """Read a file, which may have empty lines, without the chain."""
    found = [json.loads(line) for line in path.read_text().split("\n") if line]
    plain = [{name: each[name] for name in each if name != "chain"} for each in found]
    return [record for record in plain if record["event"] != "audit.continued"]


def test_a_record_says_who_what_when_where_and_how_it_ended(sink, path):
    """Case K124."""
    sink.write(issued())

    assert records(path) == [
        {
            "time": "2030-01-02T03:04:05.678Z",
            "event": "token.issued",
            "request_id": "a-request",
            "message_id": "a-message",
            "source_address": "192.0.2.7",
            "client_id": "mapper-client",
            "grant_type": "client_credentials",
            "authentication_method": "client_secret_post",
            "scope": "mapper/link",
            "audience": ["https://mapper.example"],
            "jti": "a-jti",
            "kid": "a-kid",
            "backend_request_id": "",
            "token_format": "jwt",
            "expires_at": 1_900_000_000,
            "confirmation": None,
            "outcome": "success",
        }
    ]


@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_whatever_a_field_holds_the_record_stays_one_line(sink, path, hostile):
    """Case K123."""
    sink.write(issued(client_id=hostile, message_id=hostile, scope=hostile, kid=hostile))
    sink.write(TokenRefused(error="invalid_client", reason=hostile))

    content = path.read_bytes()
    assert all(0x20 <= byte < 0x7F for byte in content.replace(b"\n", b""))
    assert len(content.decode().splitlines()) == 2
    first, second = records(path)
    assert (first["event"], second["event"]) == ("token.issued", "token.refused")
    if "\ud800" not in hostile:
        assert first["client_id"] == second["reason"] == hostile


@given(st.text())
def test_any_text_comes_back_as_it_was(text):
    """Case K123."""
    read, write = os.pipe()
    try:
        sink = AuditSink(f"/dev/fd/{write}", lambda: AT)
        sink.write(CutOffRecorded(actor="o", kind="client", subject=text, instant_microseconds=1))
        line = os.read(read, 65_536)
        sink.close()
    finally:
        os.close(read)
        os.close(write)
    assert line.count(b"\n") == 1
    assert json.loads(line)["subject"] == text


def test_a_new_file_is_its_owner_s_alone_and_an_old_one_is_continued(sink, path):
    sink.write(issued(jti="one"))
    again = AuditSink(str(path), lambda: AT)
    again.write(issued(jti="two"))
    again.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [record["jti"] for record in records(path)] == ["one", "two"]


def test_a_file_moved_away_is_followed_within_a_second(sink, path, seconds, tmp_path):
    sink.write(issued(jti="one"))
    path.rename(tmp_path / "old.jsonl")
    sink.write(issued(jti="two"))
    seconds.now += 1.0
    sink.write(issued(jti="three"))

    assert [record["jti"] for record in records(tmp_path / "old.jsonl")] == ["one", "two"]
    assert [record["jti"] for record in records(path)] == ["three"]


def test_a_file_replaced_by_another_is_followed(sink, path, seconds, tmp_path):
    path.rename(tmp_path / "old.jsonl")
    path.touch()
    seconds.now += 1.0
    sink.write(issued())
    assert len(records(path)) == 1


def test_threads_lose_nothing_while_the_file_is_rotated(path, tmp_path):
    """Case K125."""
    sink = AuditSink(str(path), lambda: AT, monotonic=lambda: next(ticks))
    ticks = iter(range(1_000_000))  # each write looks whether the file was moved

    def write(name):
        for number in range(200):
            sink.write(issued(jti=f"{name}-{number}"))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20):
        if path.exists():
            path.rename(tmp_path / f"old-{number}.jsonl")
        time.sleep(0.002)
    for thread in threads:
        thread.join()
    sink.close()

    found = [record["jti"] for file in tmp_path.iterdir() for record in records(file)]
    assert sorted(found) == sorted(f"{name}-{number}" for name in range(4) for number in range(200))


FORKING = """
import os, sys
from datetime import UTC, datetime
from authz_server.audit.sink import AuditSink
from authz_server.audit.events import ServerStopped

sink = AuditSink(sys.argv[1], lambda: datetime.now(UTC))
children = []
for name in range(3):
    child = os.fork()
    if child == 0:
        for number in range(200):
            sink.write(ServerStopped(process_id=name * 1_000 + number))
        os._exit(0)
    children.append(child)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


@pytest.mark.parametrize("through_a_pipe", [False, True])
def test_forked_processes_share_one_destination(path, through_a_pipe):
    """Case K125."""
    with path.open("ab") as file:
        run = subprocess.run(
            [sys.executable, "-c", FORKING, "stdout" if through_a_pipe else str(path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
        )
        file.write(run.stdout)
    assert len({record["process_id"] for record in records(path)}) == 600


def test_no_space_means_not_recorded():
    """Case K125."""
    sink = AuditSink("/dev/full", lambda: AT)
    with pytest.raises(AuditUnavailable) as caught:
        sink.write(issued())
    sink.close()
    assert (caught.value.reason, caught.value.status_code) == ("temporarily_unavailable", 503)
    assert "No space left" in caught.value.detail


def test_a_record_cut_short_is_refused_and_swallows_no_other(sink, path, seconds):
    """Case K125."""
    sink.write(issued(jti="whole"))
    length = path.stat().st_size
    with limited_file_size(length + 50), pytest.raises(AuditUnavailable):
        sink.write(issued(jti="cut"))
    assert path.stat().st_size == length + 50
    sink.write(issued(jti="next"))
    cut_by_another = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(cut_by_another, b'{"time":')
    os.close(cut_by_another)
    seconds.now += 1.0
    sink.write(issued(jti="last"))

    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["jti"] for line in whole] == ["whole", "next", "last"]


def test_a_file_begun_on_a_full_disk_still_says_that_it_continues_another(
    sink, path, seconds, tmp_path
):
    sink.write(issued(jti="one"))
    path.rename(tmp_path / "old.jsonl")
    seconds.now += 1.0
    with limited_file_size(0), pytest.raises(AuditUnavailable):
        sink.write(issued(jti="two"))
    sink.write(issued(jti="three"))
    first, second = (json.loads(line) for line in path.read_text().splitlines() if line)
    assert (first["event"], second["jti"]) == ("audit.continued", "three")


def test_a_failure_lasts_until_something_can_be_written(sink, path):
    """Case K125: by the next record, or without waiting for one."""
    for again in (lambda: sink.write(issued()), sink.try_again):
        with limited_file_size(path.stat().st_size), pytest.raises(AuditUnavailable):
            sink.write(issued())
        assert sink.has_failed
        again()
        assert not sink.has_failed
