"""The chain of the lines: each kind of tampering is found and named at its first place."""

import json
import os
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from authz_server.audit.chain import Head
from authz_server.audit.chain_events import AuditCheckpoint
from authz_server.audit.events import ServerStarted, ServerStopped
from authz_server.audit.line_check import KnownHead, LineCheck
from authz_server.audit.notifier import AuditUnavailable
from authz_server.audit.sink import AuditSink
from support.checkpoints import CheckpointKey

AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = CheckpointKey()


class Log:
    """A file with two processes' records; each wrote five, in turns."""

    def __init__(self, path):
        self.path = path
        self.now, self.seconds = AT, 100.0
        self.first, self.second = self.sink(), self.sink()
        for number in range(5):
            self.write(self.first, number)
            self.write(self.second, number)

    def sink(self):
        return AuditSink(str(self.path), lambda: self.now, monotonic=lambda: self.seconds)

    def write(self, sink, number=0):
        sink.write(ServerStarted(version="1", issuer="i", process_id=number))

    def lines(self):
        return self.path.read_bytes().splitlines(keepends=True)

    def close(self):
        self.first.close()
        self.second.close()


@pytest.fixture
def log(tmp_path):
    log = Log(tmp_path / "audit.jsonl")
    yield log
    log.close()


def check(*files, known=()):
    checked = LineCheck(KEY.reader(), known)
    for number, lines in enumerate(files):
        checked.add(f"file{number}", lines)
    return checked.finish()


def found(*files, known=()):
    return [(each.fault, each.place) for each in check(*files, known=known).findings]


def known(head, source="the database", at=None):
    return [KnownHead(head=head, source=source, at=at)]


def test_the_hash_is_that_of_the_line_before_without_its_end(log):
    """As ``docs/events.md`` shows it with sha256sum."""
    lines = log.lines()
    third, fifth = json.loads(lines[2])["chain"], json.loads(lines[4])["chain"]
    assert third["writer"] == fifth["writer"]
    assert (third["sequence"], fifth["sequence"]) == (2, 3)
    assert fifth["previous"] == sha256(lines[2].rstrip(b"\n")).hexdigest()
    assert json.loads(lines[0])["chain"]["previous"] == ""


def test_two_processes_have_chains_of_their_own_that_are_intact(log):
    result = check(log.lines(), known=known(log.first.head))
    assert (result.records, result.writers, result.findings) == (10, 2, ())
    assert log.first.head.writer != log.second.head.writer


@pytest.mark.parametrize(
    ("tamper", "fault", "line"),
    [
        (
            lambda x: [*x[:4], x[4].replace(b'"version":"1"', b'"version":"2"'), *x[5:]],
            "changed",
            5,
        ),
        (lambda x: [*x[:4], b'{"event":\n', *x[5:]], "changed", 5),
        (lambda x: [*x[:4], *x[5:]], "removed", 6),
        (lambda x: x[3:], "removed", 1),
        (lambda x: [*x[:4], x[6], x[5], x[4], *x[7:]], "reordered", 7),
        (lambda x: [*x[:9], x[4], *x[9:]], "inserted", 10),
        (lambda x: [*x[:9], b'{"event":"token.issued"}\n', *x[9:]], "inserted", 10),
        (lambda x: x[:6], "cut off", 5),
    ],
    ids=["changed", "garbled", "removed", "head", "reordered", "repeated", "unchained", "cut"],
)
def test_each_kind_of_tampering_is_named_at_its_first_place(log, tamper, fault, line):
    findings = found(tamper(log.lines()), known=known(log.first.head))
    assert findings[0] == (fault, f"file0, line {line}")


def test_the_record_that_was_changed_last_is_named_by_a_known_head(log):
    lines = log.lines()
    lines[8] = lines[8].replace(b'"version":"1"', b'"version":"2"')
    assert found(lines) == []
    assert found(lines, known=known(log.first.head)) == [("changed", "file0, line 9")]


def test_a_changed_previous_hash_after_a_covered_record_is_named_itself(log):
    lines = log.lines()
    head = Head(log.first.head.writer, 3, sha256(lines[4].rstrip(b"\n")).hexdigest())
    lines[6] = lines[6].replace(head.hash.encode(), b"0" * 64)
    assert found(lines, known=known(head))[0] == ("changed", "file0, line 7")


def test_a_process_that_wrote_and_is_missing_altogether_is_named(log):
    own = [each for each in log.lines() if log.second.head.writer.encode() in each]
    assert found(own, known=known(log.first.head, at=AT + timedelta(hours=1))) == [
        ("removed", "the files")
    ]
    # It ended before the files begin, which were kept for some time only.
    assert found(own, known=known(log.first.head, at=AT - timedelta(hours=1))) == []


def test_rotated_files_are_one_chain_and_the_oldest_may_be_gone(log):
    old = log.path.rename(log.path.with_name("audit.jsonl.1"))
    log.seconds += 2
    for sink in (log.first, log.second):
        log.write(sink)
        log.write(sink)
    new = log.lines()
    assert [json.loads(each)["event"] for each in new].count("audit.continued") == 2
    assert found(old.read_bytes().splitlines(keepends=True), new) == []
    assert found(new) == []
    assert found(new[1:])[0] == ("removed", "file0, line 1")
    assert found(new, old.read_bytes().splitlines(keepends=True))[0][0] == "inserted"


def test_an_emptied_file_begins_with_a_record_that_continues(log):
    log.seconds += 2
    log.write(log.first)
    os.truncate(log.path, 0)
    log.seconds += 2
    log.write(log.first)
    assert next(json.loads(each)["event"] for each in log.lines()) == "audit.continued"


def test_a_clock_that_is_set_back_changes_nothing(log):
    log.now -= timedelta(days=400)
    log.write(log.first)
    log.now += timedelta(days=800)
    log.write(log.second)
    assert found(log.lines()) == []


def test_a_forked_process_begins_a_chain_of_its_own(log):
    child = os.fork()
    if not child:
        log.write(log.first)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    log.write(log.first)
    result = check(log.lines())
    assert (result.records, result.writers, result.findings) == (12, 3, ())


def test_a_line_that_is_nested_too_deeply_is_unreadable(log):
    with log.path.open("ab") as file:
        file.write(
            b'{"time":"2030-01-02T03:04:05.000Z","event":"token.issued","a":' + b"[" * 99_999
        )
        file.write(b'\n{"event":"\xff"}\n')
    log.write(log.first)
    result = check(log.lines())
    assert (result.unreadable, result.findings) == (2, ())


def test_a_line_that_a_full_disk_cut_off_is_no_finding(log):
    with log.path.open("ab") as file:
        file.write(b'{"time":"2030-01-02T03:04:05.000Z","event":"tok')
    log.seconds += 2
    log.write(log.first)
    result = check(log.lines())
    assert (result.unreadable, result.findings) == (1, ())


def test_records_from_before_the_chain_are_counted(log):
    old = b'{"time":"2029-01-01T00:00:00.000Z","event":"server.started"}\n'
    result = check([old, *log.lines()])
    assert (result.unchained, result.findings) == (1, ())


def checkpoint(log, key=KEY, typ=None, **members):
    """Write a checkpoint of the first process into the file."""
    head = log.first.head
    facts = {"writer": head.writer, "sequence": head.sequence, "hash": head.hash} | members
    token = key.checkpoint(**facts) if typ is None else key.sign(b"{}", typ).token
    log.first.write(AuditCheckpoint(kid=key.kid, checkpoint=token))


def test_a_checkpoint_covers_the_records_before_it(log):
    checkpoint(log)
    result = check(log.lines())
    assert result.findings == ()
    assert result.signed_until == AT
    # The checkpoint itself, and the five records of the other process.
    assert result.unsigned == 6


def test_a_checkpoint_names_the_end_of_other_processes(log):
    """Their last records are cut off, and the first process goes on."""
    other = log.second.head
    checkpoint(log, writers={other.writer: [other.sequence, other.hash]})
    lines = log.lines()
    assert check(lines).unsigned == 1
    assert found([*lines[:9], lines[10]]) == [("cut off", "file0, line 8")]


def test_a_forged_checkpoint_is_named(log):
    checkpoint(log, CheckpointKey())
    checkpoint(log, typ="at+jwt")
    assert [each[0] for each in found(log.lines())] == ["forged", "forged"]
    checked = LineCheck(CheckpointKey("another").reader())
    checked.add("file", log.lines()[:11])
    assert checked.finish().findings == ()


def test_a_rewritten_chain_does_not_agree_with_its_checkpoint(log):
    """Every hash was computed again, as a writer of the file can."""
    checkpoint(log)
    writer, previous, sequence, lines = log.first.head.writer, "", 0, []
    for line in log.lines():
        record = json.loads(line)
        if record["chain"]["writer"] != writer or record.get("process_id") == 2:
            continue
        sequence += 1
        record["chain"] |= {"sequence": sequence, "previous": previous}
        written = json.dumps(record, separators=(",", ":")).encode()
        previous = sha256(written).hexdigest()
        lines.append(written + b"\n")
    assert [each[0] for each in found(lines)] == ["changed"]


def test_every_process_ends_with_its_last_event(log):
    log.first.write(ServerStopped(process_id=1))
    assert json.loads(log.lines()[-1])["chain"]["sequence"] == 6


def test_a_record_that_lacks_its_line_end_alone_is_part_of_the_chain(log, monkeypatch):
    """The disk was full one byte too early."""
    write = os.write

    def short(descriptor, data):
        return write(descriptor, data[:-1])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", short)
        with pytest.raises(AuditUnavailable):
            log.write(log.first)
    log.write(log.first)
    assert check(log.lines()).findings == ()


def test_a_file_without_one_record_is_not_intact():
    assert found([b"garbage\n", b"{}\n", b"\xff\x00\n"]) == [("changed", "file0, line 1")]
    assert found([b"\n"]) == []
