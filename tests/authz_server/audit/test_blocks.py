"""Stored records in signed blocks: each kind of tampering is found, and purged ones are not."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, select, update

from authz_server.audit import blocks
from authz_server.audit.block_check import BlockCheck
from authz_server.audit.blocks import hash_block, seal_records
from authz_server.audit.chain import NO_HASH
from authz_server.audit.checkpoints import AuditCheckpoints, record_head
from authz_server.audit.events import ServerStopped
from authz_server.audit.models import AuditBlock, AuditRecord, AuditWriter
from authz_server.audit.purging import purge_audit_chain, purge_audit_records
from authz_server.audit.records import store_audit_record
from authz_server.audit.sink import AuditSink
from support.checkpoints import CheckpointKey
from support.roles import attached

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
KEY = CheckpointKey()


@pytest.fixture
def database(database_url, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_RECORDS", 4)
    with attached(database_url) as database:
        yield database


@pytest.fixture
def checkpoints(database, tmp_path):
    """The checkpoints of a process that writes to a file."""
    path = str(tmp_path / "audit.jsonl")
    sink = AuditSink(path, lambda: NOW)
    yield AuditCheckpoints(
        database=database,
        sink=sink,
        destination=path,
        notify=sink.write,
        sign=KEY.sign,
        may_wait=lambda: False,
        issuer="https://authz.example",
        keep_days=30,
        clock=lambda: NOW,
    )
    sink.close()


def record(database, *ages):
    """Store a record of each age."""
    with database.transaction() as session:
        for number, age in enumerate(ages):
            store_audit_record(
                session,
                at=NOW - age,
                actor="operator:ana",
                action="client.updated",
                subject=f"c{number}",
                name=f"Änderung {number}",
                figures=[number, None, 1.5],
            )


def verify(database, now=NOW, *, keep_days=0, checkpoints=()):
    with database.reading() as session:
        check = BlockCheck(
            session,
            KEY.reader(),
            kept_since=now - keep_days * DAY if keep_days else None,
            now=now,
        )
        return check.run([*checkpoints, *check.read_checkpoints()])


def faults(database, now=NOW, **options):
    return [(each.fault, each.place) for each in verify(database, now, **options).findings]


def change(database, *statements):
    with database.transaction() as session:
        for statement in statements:
            session.execute(statement)


def test_records_are_sealed_after_their_commit_and_are_intact(database):
    record(database, *([DAY] * 10))
    assert verify(database).unsealed == 10
    assert seal_records(database, NOW) == 10
    assert seal_records(database, NOW) == 0
    record(database, DAY)
    result = verify(database)
    assert (result.records, result.blocks, result.unsealed) == (10, 3, 1)
    assert result.findings == ()


def test_several_nodes_seal_at_once_and_each_record_once(database):
    record(database, *([DAY] * 40))
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            list(pool.map(lambda _: seal_records(database, NOW), range(4)))
    result = verify(database)
    assert (result.records, result.unsealed, result.findings) == (40, 0, ())


@pytest.mark.parametrize(
    ("statements", "fault", "place"),
    [
        ([update(AuditRecord).where(AuditRecord.id == 6).values(actor="a")], "changed", "record 6"),
        (
            [
                update(AuditRecord)
                .where(AuditRecord.id == 6)
                .values(at=NOW - timedelta(microseconds=1))
            ],
            "changed",
            "record 6",
        ),
        (
            [update(AuditRecord).where(AuditRecord.id == 6).values(detail={"name": "x"})],
            "changed",
            "record 6",
        ),
        ([delete(AuditRecord).where(AuditRecord.id == 6)], "removed", "record 6"),
        ([delete(AuditRecord).where(AuditRecord.id >= 9)], "cut off", "record 9"),
        (
            [
                update(AuditRecord).where(AuditRecord.id == 5).values(id=50),
                update(AuditRecord).where(AuditRecord.id == 6).values(id=5),
                update(AuditRecord).where(AuditRecord.id == 50).values(id=6),
            ],
            "reordered",
            "record 5",
        ),
        ([delete(AuditBlock).where(AuditBlock.number == 2)], "removed", "block 3"),
        ([delete(AuditBlock).where(AuditBlock.number == 1)], "removed", "block 2"),
        (
            [update(AuditBlock).where(AuditBlock.number == 2).values(hash="0" * 64)],
            "changed",
            "block 2",
        ),
        (
            [
                delete(AuditRecord).where(AuditRecord.id >= 9),
                delete(AuditBlock).where(AuditBlock.number == 3),
            ],
            "cut off",
            "block 2",
        ),
        (
            [
                delete(AuditRecord).where(AuditRecord.id <= 4),
                delete(AuditBlock).where(AuditBlock.number == 1),
                update(AuditBlock).where(AuditBlock.number == 2).values(last_at=NOW - 90 * DAY),
            ],
            "changed",
            "block 2",
        ),
    ],
    ids="actor time detail removed tail swapped block first hash cut swept".split(),  # noqa: SIM905
)
def test_each_kind_of_tampering_is_named(database, checkpoints, statements, fault, place):
    record(database, *([DAY] * 10))
    checkpoints.seal_audit_records()
    assert checkpoints.write_audit_checkpoint()
    with database.reading() as session:
        token = session.scalar(select(AuditWriter.checkpoint))
    held = [("the file", KEY.reader().read(token))]
    assert faults(database, checkpoints=held) == []
    change(database, *statements)
    assert faults(database, checkpoints=held)[0] == (fault, place)


@pytest.mark.parametrize("days", [-30, 30])
def test_the_time_of_a_sealing_is_protected(database, days):
    """A later one would hide that no checkpoint covers the block."""
    record(database, DAY)
    seal_records(database, NOW)
    moved = NOW + timedelta(days=days, microseconds=1)
    change(database, update(AuditBlock).values(sealed_at=moved))
    assert faults(database)[0] == ("changed", "block 1")


def test_a_block_of_an_earlier_release_is_intact(database):
    """Its hash is without the time of its sealing."""
    record(database, *([DAY] * 6))
    seal_records(database, NOW)
    with database.transaction() as session:
        previous = NO_HASH
        for block in session.scalars(select(AuditBlock).order_by(AuditBlock.number)):
            block.previous_hash = previous
            previous = block.hash = hash_block(previous, block.number, block.records, None)
    record(database, DAY)
    seal_records(database, NOW)
    assert faults(database) == []


@pytest.mark.parametrize(
    "listed",
    [["x"], [[1]], [[1, 2, 3]], [[1, "a", 2**62]], [[2**70, "a", 1]], {"a": 1}, 5, None],
    ids=repr,
)
def test_a_block_that_lists_no_records_is_changed(database, listed):
    """Whatever it lists instead: a verification that fails would name no place."""
    record(database, *([DAY] * 6))
    seal_records(database, NOW)
    change(database, update(AuditBlock).where(AuditBlock.number == 2).values(records=listed))
    assert ("changed", "block 2") in faults(database)


DEEP = "[" * 3_000 + "]" * 3_000
ALTERED = [
    *(("audit_record", name) for name in ("at", "actor", "action", "subject", "detail", "block")),
    *(("audit_block", name) for name in ("number", "records", "sealed_at", "last_at")),
    *(("audit_block", name) for name in ("previous_hash", "hash", "signature")),
]


@pytest.mark.parametrize("value", ["'x'", "x'00'", "x'6162'", "CAST(x'ff' AS TEXT)", f"'{DEEP}'"])
@pytest.mark.parametrize(("table", "column"), ALTERED)
def test_a_row_that_cannot_be_read_is_named(sqlite_url, table, column, value):
    """SQLite stores any text and any bytes in any column."""
    with attached(sqlite_url) as database:
        record(database, DAY, DAY)
        seal_records(database, NOW)
        altered = f"UPDATE {table} SET {column} = {value} WHERE rowid = 1"  # noqa: S608
        with database.transaction() as session:
            session.connection().exec_driver_sql(altered)
        found = faults(database)
        named = "record 1" if (table, column) in ALTERED[:6] or column == "number" else "block 1"
        assert found[0][1] == named
        assert found[0][0] in {"changed", "inserted", "forged"}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *((name, "x'00'") for name in ("at", "actor", "action", "subject", "detail")),
        *((name, "CAST(x'ff' AS TEXT)") for name in ("at", "actor", "detail")),
        ("detail", f"'{DEEP}'"),
    ],
)
def test_a_row_that_cannot_be_read_keeps_no_other_from_its_block(sqlite_url, column, value):
    """It is the only one without a block."""
    with attached(sqlite_url) as database:
        record(database, DAY, DAY, DAY)
        altered = f"UPDATE audit_record SET {column} = {value} WHERE id = 2"  # noqa: S608
        with database.transaction() as session:
            session.connection().exec_driver_sql(altered)
        assert seal_records(database, NOW) == 2
        record(database, DAY)
        assert seal_records(database, NOW) == 1
        result = verify(database)
        assert (result.records, result.unsealed, result.findings) == (3, 1, ())


def test_a_record_that_claims_to_be_sealed_is_inserted(database):
    record(database, DAY, DAY)
    seal_records(database, NOW)
    record(database, DAY)
    change(database, update(AuditRecord).where(AuditRecord.id == 3).values(block=1))
    assert faults(database) == [("inserted", "record 3")]


def test_a_forged_checkpoint_of_a_block_is_named(database):
    record(database, DAY)
    seal_records(database, NOW)
    forged = CheckpointKey().checkpoint(block={"number": 1, "hash": "x"})
    change(database, update(AuditBlock).values(signature=forged))
    assert faults(database) == [("forged", "block 1")]


def test_a_block_without_a_checkpoint_is_named_after_an_hour(database, checkpoints):
    record(database, DAY)
    checkpoints.seal_audit_records()
    later = NOW + timedelta(minutes=61)
    assert faults(database) == []
    assert faults(database, later) == [("unsigned", "block 1")]
    checkpoints.write_audit_checkpoint()
    result = verify(database, later)
    assert (result.findings, result.signed_until) == ((), NOW)


def test_a_checkpoint_is_written_when_something_moved(database, checkpoints):
    assert not checkpoints.write_audit_checkpoint()
    record(database, DAY)
    checkpoints.seal_audit_records()
    assert checkpoints.write_audit_checkpoint()
    assert not checkpoints.write_audit_checkpoint()


def test_purged_records_and_blocks_stay_provable(database, checkpoints):
    """The last purged block stands for those before it, and a younger record may not be missing."""
    record(database, *([40 * DAY] * 8), *([35 * DAY] * 4), *([20 * DAY] * 4), DAY)
    checkpoints.seal_audit_records()
    checkpoints.write_audit_checkpoint()
    with database.transaction() as session:
        assert purge_audit_records(session, NOW - 30 * DAY, 100) == 12
        assert purge_audit_chain(session, NOW - 30 * DAY, 100) == 2
    result = verify(database)
    assert (result.findings, result.blocks, result.swept, result.records) == ((), 3, 4, 5)
    # Without the signed time, the settings have to permit it.
    change(
        database,
        update(AuditBlock).values(signature=None),
        update(AuditWriter).values(checkpoint=None),
    )
    assert faults(database, keep_days=30) == []
    assert faults(database)[0] == ("removed", "block 3")
    change(database, delete(AuditRecord).where(AuditRecord.at < NOW - 2 * DAY))
    assert faults(database, keep_days=30)[0] == ("removed", "record 13")


def test_blocks_of_records_that_the_latest_one_keeps_stay(database, checkpoints):
    """Those of its time and later are kept, though they are older than the settings keep them."""
    kept = ([age * DAY] * 4 for age in (39.6, 39.5, 39))
    record(database, *([60 * DAY] * 8), *(each for ages in kept for each in ages), 40 * DAY)
    checkpoints.seal_audit_records()
    checkpoints.write_audit_checkpoint()
    with database.transaction() as session:
        assert purge_audit_records(session, NOW - 30 * DAY, 100) == 8
        assert purge_audit_chain(session, NOW - 30 * DAY, 100) == 1
    result = verify(database)
    assert (result.findings, result.records) == ((), 13)


def test_heads_of_commands_are_named_by_the_next_checkpoint(database, checkpoints, tmp_path):
    command = AuditSink(str(tmp_path / "audit.jsonl"), lambda: NOW)
    command.write(ServerStopped(process_id=1))
    record_head(database, command.head, str(tmp_path / "audit.jsonl"), NOW)
    assert checkpoints.write_audit_checkpoint()
    with database.reading() as session:
        tokens = session.execute(select(AuditWriter.writer, AuditWriter.checkpoint)).all()
    found = {writer: KEY.reader().read(token) for writer, token in tokens}
    assert found[command.head.writer].writers == {
        command.head.writer: (1, command.head.hash),
    }
    command.close()
