"""Seal stored audit records into a chain of blocks.

Records are sealed after their commit, since a chain within the transactions would let one of them
run at a time. A block lists its records by id and hash, and has the hash of the block before it.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Select, exists, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from authz_server.audit.chain import NO_HASH
from authz_server.audit.models import AuditBlock, AuditRecord
from authz_server.audit.stored_rows import load
from authz_server.database.orm import Database

#: The largest number of records in a block.
BLOCK_RECORDS = 500
_LEAST_PAUSE_SECONDS = 0.02
#: The number of blocks that one run seals.
_MAXIMUM_BLOCKS = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def hash_record(record: AuditRecord) -> str:
    """Return the hash of a record: SHA-256, in hex, of its fields as a JSON list.

    The JSON is ASCII without spaces, with sorted members. The id is not part of it, so that records
    that changed places are recognized.
    """
    fields = [
        microseconds_of(record.at),
        record.actor,
        record.action,
        record.subject,
        record.detail,
    ]
    return hashlib.sha256(_encode(fields)).hexdigest()


def hash_block(
    previous_hash: str, number: int, records: Sequence[Any], sealed_at: datetime | None
) -> str:
    """Return the hash of a block: SHA-256 of its fields as a JSON list, in hex.

    Args:
        previous_hash: the hash of the block before it.
        number: its number.
        records: its records.
        sealed_at: the time at which it was sealed; None: as earlier releases hashed it, without.
    """
    fields = [previous_hash, number, records]
    if sealed_at is not None:
        fields.append(microseconds_of(sealed_at))
    return hashlib.sha256(_encode(fields)).hexdigest()


def microseconds_of(at: datetime) -> int:
    """Return microseconds since 1970-01-01 UTC."""
    return (at - _EPOCH) // _MICROSECOND


def time_of(microseconds: int) -> datetime:
    """Return the time of microseconds since 1970-01-01 UTC."""
    return _EPOCH + microseconds * _MICROSECOND


def seal_records(database: Database, now: datetime) -> int:
    """Seal the records that are not sealed yet; return their number.

    Several nodes may do so at once. One of them adds a block, and the others add the next ones.

    Args:
        database: holds the records.
        now: the present time.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer; earlier blocks stay.
    """
    total = 0
    for _ in range(_MAXIMUM_BLOCKS):
        with database.reading() as session:
            if not session.scalar(select(exists().where(AuditRecord.block.is_(None)))):
                break
        began = time.monotonic()
        try:
            with database.transaction() as session:
                sealed = _seal_block(session, now)
        except IntegrityError:  # another process added this block
            break
        total += sealed
        if not sealed:
            break
        if database.connector is None and sealed == BLOCK_RECORDS:
            # SQLite has one writer at a time: after an upgrade, thousands of records are due.
            time.sleep(max(_LEAST_PAUSE_SECONDS, 2 * (time.monotonic() - began)))
    return total


def _seal_block(session: Session, now: datetime) -> int:
    # The head first: records that another process seals meanwhile then collide with its block.
    latest = select(AuditBlock.number, AuditBlock.hash).order_by(AuditBlock.number.desc()).limit(1)
    head = session.execute(latest).first()
    query = select(AuditRecord).where(AuditRecord.block.is_(None)).order_by(AuditRecord.id)
    found = _load(session, query.limit(BLOCK_RECORDS))
    if not found:
        return 0
    number, previous = (1, NO_HASH) if head is None else (head.number + 1, head.hash)
    records = [[each.id, hashed, microseconds_of(each.at)] for each, hashed in found]
    session.add(
        AuditBlock(
            number=number,
            records=records,
            sealed_at=now,
            last_at=max(each.at for each, _ in found),
            previous_hash=previous,
            hash=hash_block(previous, number, records, now),
        )
    )
    session.flush()
    ids = [each.id for each, _ in found]
    session.execute(update(AuditRecord).where(AuditRecord.id.in_(ids)).values(block=number))
    return len(found)


def _load(session: Session, query: Select[Any]) -> list[tuple[AuditRecord, str]]:
    """Return records with their hashes; one that cannot be read stays without a block."""
    rows = load(lambda: [(each, hash_record(each)) for each in session.scalars(query)])
    if rows is not None:
        return rows
    ids = session.scalars(query.with_only_columns(AuditRecord.id)).all()
    found = (load(partial(_load_one, session, record_id)) for record_id in ids)
    return [each for each in found if each is not None]


def _load_one(session: Session, record_id: int) -> tuple[AuditRecord, str]:
    record = session.scalars(select(AuditRecord).where(AuditRecord.id == record_id)).one()
    return record, hash_record(record)


def _encode(fields: Sequence[Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
