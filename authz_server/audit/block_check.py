"""Check the chain of the stored audit records, and find the first place that is not intact."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from msgspec import Meta
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from authz_server.audit.blocks import hash_block, hash_record, microseconds_of, time_of
from authz_server.audit.chain import NO_HASH
from authz_server.audit.findings import (
    MAXIMUM_FINDINGS,
    Checkpoint,
    CheckpointReader,
    Fault,
    Finding,
    describe,
)
from authz_server.audit.models import AuditBlock, AuditRecord
from authz_server.audit.stored_rows import load
from authz_server.audit.time_limit import require_time
from keys.errors import TokenRefusedError

#: How long a block may wait for a checkpoint, for example while a key backend is away.
_UNSIGNED = timedelta(hours=1)
#: A purge compares with the clock of another machine.
_SLACK = timedelta(minutes=10)
#: SQLite orders text and bytes after every number.
_LARGEST_NUMBER = 2**63 - 1
_EARLIEST = microseconds_of(datetime(1, 1, 1, tzinfo=UTC))
_LATEST = microseconds_of(datetime(9999, 12, 31, tzinfo=UTC))


Row = TypeVar("Row", AuditBlock, AuditRecord)


class _Listed(NamedTuple):
    """A record of a block."""

    record_id: Annotated[int, Meta(ge=1, le=_LARGEST_NUMBER)]
    hash: str
    microseconds: Annotated[int, Meta(ge=_EARLIEST, le=_LATEST)]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockResult:
    """The result of a check of the stored records.

    Attributes:
        records: the number of intact records.
        blocks: the number of blocks.
        swept: the number of listed records that were purged after the configured time.
        unsealed: the number of records that are in no block yet.
        signed_until: the time at which the latest signed block was sealed.
        findings: the places that are not intact.
    """

    records: int
    blocks: int
    swept: int
    unsealed: int
    signed_until: datetime | None
    findings: tuple[Finding, ...]


class BlockCheck:
    """Checks the stored records of one database.

    Args:
        session: for reading.
        reader: verifies checkpoints.
        kept_since: older records may be missing; None: none may, except by signed checkpoints.
        now: the present time.
    """

    def __init__(
        self,
        session: Session,
        reader: CheckpointReader,
        *,
        kept_since: datetime | None,
        now: datetime,
    ) -> None:
        self._session = session
        self._reader = reader
        self._kept_since = kept_since
        self._now = now
        self._findings: list[Finding] = []
        self._intact = self._swept = self._blocks = 0
        self._signed_until: datetime | None = None
        self._unsigned: AuditBlock | None = None
        self._last: AuditBlock | None = None

    def run(self, checkpoints: Iterable[tuple[str, Checkpoint]]) -> BlockResult:
        """Check every block and record; the first place that is not intact comes first.

        Args:
            checkpoints: those of :meth:`read_checkpoints`, and from elsewhere, by their place.

        Raises:
            ReadingTooLongError: the time limit has passed.
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        known = self._known_blocks(list(checkpoints))
        last = 0
        while True:
            require_time()
            number = self._session.scalar(
                select(func.min(AuditBlock.number)).where(
                    AuditBlock.number.between(last + 1, _LARGEST_NUMBER)
                )
            )
            if number is None:
                break
            blocks = self._load(select(AuditBlock).where(AuditBlock.number == number))
            if not blocks or load(partial(self._check_block, blocks[0], known)) is None:
                self._find("changed", f"block {number}", "it cannot be read")
            last = number
            self._session.expunge_all()
        self._require_end(known)
        self._require_signature()
        self._require_listed()
        unsealed = select(func.count()).where(AuditRecord.block.is_(None))
        return BlockResult(
            records=self._intact,
            blocks=self._blocks,
            swept=self._swept,
            unsealed=self._session.scalar(unsealed) or 0,
            signed_until=self._signed_until,
            findings=tuple(self._findings),
        )

    def read_checkpoints(self) -> Sequence[tuple[str, Checkpoint]]:
        """Return the valid checkpoints of the blocks, by their place."""
        valid = []
        for number, token in self._signatures():
            place = f"block {number}"
            if not isinstance(token, str):
                self._find("forged", place, "the checkpoint cannot be read")
                continue
            try:
                found = self._reader.read(token)
            except TokenRefusedError as error:
                self._find("forged", place, "the checkpoint is refused: {why}", why=error)
                continue
            if found is not None:
                valid.append((f"the checkpoint of {place}", found))
        return valid

    def _known_blocks(
        self, checkpoints: Sequence[tuple[str, Checkpoint]]
    ) -> Mapping[int, tuple[str, str]]:
        """Return the hash of each block that a checkpoint names, with the checkpoint's place."""
        since = [each.kept_since for _, each in checkpoints if each.kept_since is not None]
        if since:
            signed = time_of(max(since) * 1_000_000)
            self._kept_since = max(signed, self._kept_since or signed)
        return {
            each.block.number: (each.block.hash, place)
            for place, each in checkpoints
            if each.block is not None
        }

    def _signatures(self) -> Iterable[tuple[int, str | None]]:
        """Return the checkpoints of blocks by number; None for one that cannot be read."""
        query = select(AuditBlock.number, AuditBlock.signature).where(
            AuditBlock.signature.is_not(None), AuditBlock.number <= _LARGEST_NUMBER
        )
        rows = load(lambda: self._session.execute(query).all())
        if rows is not None:
            return rows
        one = select(AuditBlock.signature)
        return [
            (number, load(partial(self._session.scalar, one.where(AuditBlock.number == number))))
            for number in self._session.scalars(query.with_only_columns(AuditBlock.number)).all()
        ]

    def _check_block(self, block: AuditBlock, known: Mapping[int, tuple[str, str]]) -> bool:
        place = f"block {block.number}"
        previous = self._last
        self._blocks += 1
        if previous is None:
            if block.number > 1 and not self._may_be_swept(block.last_at):
                self._find("removed", place, "the blocks before it are missing")
            elif block.number == 1 and block.previous_hash != NO_HASH:
                self._find("changed", place, "the first block has one before it")
        elif block.number != previous.number + 1:
            self._find(
                "removed", place, "the blocks {a} to {b} are missing before it",
                a=previous.number + 1, b=block.number - 1,
            )  # fmt: skip
        elif block.previous_hash != previous.hash:
            self._find("changed", f"block {previous.number}", "the next block has another hash")
        self._last = block
        fields = block.previous_hash, block.number, block.records
        if block.hash not in {hash_block(*fields, at) for at in (block.sealed_at, None)}:
            self._find("changed", place, "it does not have its recorded hash")
        try:
            listed = msgspec.convert(block.records, list[_Listed])
        except msgspec.ValidationError:
            self._find("changed", place, "it does not list records")
        else:
            # The time is not part of the hash, and tells whether what is missing was swept.
            latest = max((each.microseconds for each in listed), default=None)
            if latest != microseconds_of(block.last_at):
                self._find("changed", place, "its time is not that of its latest record")
            self._check_records(block, listed)
        self._note_signature(block, known.get(block.number))
        return True

    def _load(self, query: Select[Row]) -> list[Row] | None:
        """Return the rows; None: one of them cannot be read."""
        return load(lambda: list(self._session.scalars(query)))

    def _load_records(self, listed: Sequence[_Listed]) -> Mapping[int, AuditRecord | None]:
        """Return the listed records that are there, by their id; None for an unreadable one."""
        ids = [each.record_id for each in listed]
        query = select(AuditRecord)
        rows = self._load(query.where(AuditRecord.id.in_(ids)))
        if rows is not None:
            return {row.id: row for row in rows}
        found: dict[int, AuditRecord | None] = {}
        for record_id in ids:
            one = self._load(query.where(AuditRecord.id == record_id))
            if one is None or one:
                found[record_id] = one[0] if one else None
        return found

    def _check_records(self, block: AuditBlock, listed: Sequence[_Listed]) -> None:
        rows = self._load_records(listed)
        hashes = {each.hash for each in listed}
        for record_id, recorded_hash, microseconds in listed:
            row, place = rows.get(record_id), f"record {record_id}"
            if row is None and record_id in rows:
                self._find("changed", place, "it cannot be read")
                continue
            if row is None:
                self._find_missing(place, record_id, time_of(microseconds))
                continue
            found = load(partial(hash_record, row))
            if found is None:
                self._find("changed", place, "it cannot be read")
                continue
            if found == recorded_hash and row.block == block.number:
                self._intact += 1
                continue
            fault: Fault = "changed"
            if found != recorded_hash and found in hashes:
                fault = "reordered"
            self._find(
                fault, place, "{action} of {subject} at {at} is not the record of block {number}",
                action=row.action, subject=row.subject, at=f"{row.at:%Y-%m-%dT%H:%M:%SZ}",
                number=block.number,
            )  # fmt: skip

    def _find_missing(self, place: str, record_id: int, at: datetime) -> None:
        if self._may_be_swept(at):
            self._swept += 1
            return
        later = select(AuditRecord.id).where(AuditRecord.id > record_id).limit(1)
        is_last = self._session.scalar(later) is None
        self._find(
            "cut off" if is_last else "removed",
            place,
            "the record of {at} is missing",
            at=f"{at:%Y-%m-%dT%H:%M:%SZ}",
        )

    def _note_signature(self, block: AuditBlock, known: tuple[str, str] | None) -> None:
        if known is None:
            self._unsigned = self._unsigned or block
            return
        if known[0] != block.hash:
            self._find(
                "changed", f"block {block.number}", "it has another hash by {source}",
                source=known[1],
            )  # fmt: skip
        self._signed_until, self._unsigned = block.sealed_at, None

    def _require_end(self, known: Mapping[int, tuple[str, str]]) -> None:
        last = 0 if self._last is None else self._last.number
        latest = max(known, default=0)
        if latest > last:
            self._find(
                "cut off", f"block {last}", "the blocks {a} to {b} are missing, by {source}",
                a=last + 1, b=latest, source=known[latest][1],
            )  # fmt: skip

    def _require_signature(self) -> None:
        block = self._unsigned
        if block is not None and block.sealed_at < self._now - _UNSIGNED:
            self._find("unsigned", f"block {block.number}", "no checkpoint covers it")

    def _require_listed(self) -> None:
        """Find records that name a block which does not list them."""
        if self._findings:
            return
        query = select(func.count()).where(AuditRecord.block.is_not(None))
        if (self._session.scalar(query) or 0) == self._intact:
            return
        numbers = select(AuditRecord.id, AuditRecord.block).where(AuditRecord.block.is_not(None))
        for record_id, number in self._session.execute(numbers.order_by(AuditRecord.id)):
            block = self._session.get(AuditBlock, number)
            if block is None or all(each[0] != record_id for each in block.records):
                place = f"record {record_id}"
                self._find("inserted", place, "block {number} does not list it", number=number)
                return

    def _may_be_swept(self, at: datetime) -> bool:
        return self._kept_since is not None and at < self._kept_since + _SLACK

    def _find(self, fault: Fault, place: str, detail: str, **values: object) -> None:
        if len(self._findings) < MAXIMUM_FINDINGS:
            self._findings.append(describe(fault, place, detail, **values))
