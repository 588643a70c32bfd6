"""Check the hash chains of the lines of audit logs, and find the first place that is not intact."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from authz_server.audit.chain import NO_HASH, Head, hash_line
from authz_server.audit.findings import (
    MAXIMUM_FINDINGS,
    UNREADABLE,
    Checkpoint,
    CheckpointReader,
    Fault,
    Finding,
    describe,
)
from keys.errors import TokenRefusedError
from keys.plurals import counted

_CONTINUED = "audit.continued"
#: The number of hashes of a writer for a checkpoint that is written some records later.
_RECENT_HASHES = 10_000
#: The longest time from a record to the storing of its hash.
_SLACK = timedelta(minutes=2)


class _Link(msgspec.Struct, frozen=True):
    writer: str
    sequence: Annotated[int, msgspec.Meta(ge=1)]
    previous: str


class _Line(msgspec.Struct, frozen=True):
    event: str
    time: str = ""
    chain: _Link | None = None
    checkpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHead:
    """A record that must be in the files.

    Attributes:
        head: the record.
        source: where it is named, such as ``the database``.
        at: when it was stored, if the files must have its writer unless they begin later; None:
            they may lack it.
    """

    head: Head
    source: str
    at: datetime | None = None


@dataclass(slots=True)
class _Writer:
    sequence: int = 0
    hash: str = NO_HASH
    place: str = ""
    time: str = ""
    covered: int = 0
    covered_time: str = ""
    missing: int = 0
    unreadable: int = 0
    finding: int | None = None
    recent: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    known: list[KnownHead] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineResult:
    """The result of a check of lines.

    Attributes:
        records: the number of records in chains.
        writers: the number of their writers.
        unchained: the number of records from before the chains.
        unreadable: the number of lines that hold no record, such as one that a full disk cut off.
        unsigned: the number of records that no checkpoint covers yet.
        signed_until: the time of the latest record that a checkpoint covers.
        first_at: the time of the first record.
        findings: the places that are not intact, in the order of the files.
    """

    records: int
    writers: int
    unchained: int
    unreadable: int
    unsigned: int
    signed_until: datetime | None
    first_at: datetime | None
    findings: tuple[Finding, ...]


class LineCheck:
    """Checks lines, in the order in which each process wrote its own.

    Args:
        reader: verifies checkpoints.
        known: records that must be in the files, read before the files are.
    """

    def __init__(self, reader: CheckpointReader, known: Iterable[KnownHead] = ()) -> None:
        self._reader = reader
        self._decode = msgspec.json.Decoder(_Line).decode
        self._writers: dict[str, _Writer] = {}
        self._elsewhere: dict[str, list[KnownHead]] = {}
        self._findings: list[Finding] = []
        self._blocks: dict[int, tuple[str, Checkpoint]] = {}
        self._records = self._unchained = 0
        self._unreadable: list[str] = []
        self._first_time = ""
        for each in known:
            self._elsewhere.setdefault(each.head.writer, []).append(each)

    @property
    def checkpoints(self) -> tuple[tuple[str, Checkpoint], ...]:
        """The valid checkpoints with a block, by their place, for a check of stored records."""
        return tuple(self._blocks.values())

    def add(self, name: str, lines: Iterable[bytes]) -> None:
        """Check the lines of a file.

        Args:
            name: the file's name in findings.
            lines: its lines, with their ends.
        """
        for number, whole in enumerate(lines, 1):
            line = whole.rstrip(b"\r\n")
            if line:
                self._add_line(f"{name}, line {number}", line)

    def finish(self) -> LineResult:
        """Return the result, after the last file."""
        for writer, state in self._writers.items():
            self._require_ends(writer, state)
        first_at = _time(self._first_time)
        for writer, known in self._elsewhere.items():
            if any(_belongs(each.at, first_at) for each in known):
                self._find(
                    "removed",
                    "the files",
                    "the writer {writer} has {records} by {source}, and none is here",
                    writer=writer,
                    records=counted(max(each.head.sequence for each in known), "record"),
                    source=known[-1].source,
                )
        if self._unreadable and not self._records + self._unchained:
            self._find("changed", self._unreadable[0], "no line of the files is a record")
        covered = [each.covered_time for each in self._writers.values() if each.covered_time]
        return LineResult(
            records=self._records,
            writers=len(self._writers),
            unchained=self._unchained,
            unreadable=len(self._unreadable),
            unsigned=sum(max(0, each.sequence - each.covered) for each in self._writers.values()),
            signed_until=_time(max(covered, default="")),
            first_at=first_at,
            findings=tuple(self._findings),
        )

    def _add_line(self, place: str, line: bytes) -> None:
        try:
            record = self._decode(line)
        except UNREADABLE:
            self._unreadable.append(place)
            return
        self._first_time = self._first_time or record.time
        if record.chain is None:
            self._add_unchained(place, record)
            return
        self._records += 1
        state = self._writers.get(record.chain.writer)
        if state is None:
            state = self._begin_writer(place, record, record.chain)
        elif not self._continues(place, state, record, record.chain):
            return
        self._append(place, state, record, record.chain, hash_line(line))
        if record.checkpoint:
            self._read_checkpoint(place, record.checkpoint)

    def _add_unchained(self, place: str, record: _Line) -> None:
        if not self._writers:
            self._unchained += 1
        else:
            self._find("inserted", place, "the record {event} is in no chain", event=record.event)

    def _begin_writer(self, place: str, record: _Line, link: _Link) -> _Writer:
        state = self._writers[link.writer] = _Writer(unreadable=len(self._unreadable))
        state.known = self._elsewhere.pop(link.writer, [])
        if link.sequence == 1 and link.previous != NO_HASH:
            self._find_in(state, "changed", place, "the first record of a writer has one before it")
        elif link.sequence > 1 and record.event != _CONTINUED:
            state.missing = 1
            self._find_in(
                state,
                "removed",
                place,
                "the records 1 to {last} of the writer {writer} are missing before it",
                last=link.sequence - 1,
                writer=link.writer,
            )
        return state

    def _continues(self, place: str, state: _Writer, record: _Line, link: _Link) -> bool:
        """Check that a record follows the latest one of its writer; False: it is an earlier one."""
        expected = state.sequence + 1
        if link.sequence == expected:
            if link.previous != state.hash:
                changed = place if state.covered == state.sequence else state.place
                self._find_in(
                    state,
                    "changed",
                    changed,
                    "record {n} of the writer {writer} does not have its recorded hash",
                    n=expected if changed is place else state.sequence,
                    writer=link.writer,
                )
            return True
        if link.sequence > expected:
            self._find_gap(place, state, link)
            return True
        if state.missing and link.sequence == state.missing and state.finding is not None:
            self._findings[state.finding] = describe(
                "reordered",
                place,
                "record {n} of the writer {writer} stands after record {last}",
                n=link.sequence,
                writer=link.writer,
                last=state.sequence,
            )
        else:
            self._find_in(
                state,
                "inserted",
                place,
                "record {n} of the writer {writer} ({event}) stands after record {last}",
                n=link.sequence,
                writer=link.writer,
                event=record.event,
                last=state.sequence,
            )
        return False

    def _find_gap(self, place: str, state: _Writer, link: _Link) -> None:
        first, last = state.sequence + 1, link.sequence - 1
        which = f"record {first}" if first == last else f"the records {first} to {last}"
        fault: Fault = "removed"
        detail = "{which} of the writer {writer} before it"
        if len(self._unreadable) > state.unreadable:
            fault, place = "changed", self._unreadable[state.unreadable]
            detail = "{which} of the writer {writer} cannot be read"
        if state.finding is None:
            state.missing = first
        self._find_in(state, fault, place, detail, which=which, writer=link.writer)

    def _append(self, place: str, state: _Writer, record: _Line, link: _Link, hash_: str) -> None:
        state.sequence, state.hash = link.sequence, hash_
        state.place, state.time = place, record.time
        state.unreadable = len(self._unreadable)
        state.recent[link.sequence] = (hash_, place, record.time)
        state.recent.pop(link.sequence - _RECENT_HASHES, None)
        if state.known:
            for each in [one for one in state.known if one.head.sequence <= link.sequence]:
                state.known.remove(each)
                self._compare(state, each)

    def _read_checkpoint(self, place: str, token: str) -> None:
        try:
            found = self._reader.read(token)
        except TokenRefusedError as error:
            self._find("forged", place, "the checkpoint is refused: {why}", why=error)
            return
        if found is None:
            return
        if found.block is not None:
            self._blocks[found.block.number] = (place, found)
        for head in found.heads:
            self._expect(KnownHead(head=head, source=f"the checkpoint in {place}"))

    def _expect(self, known: KnownHead) -> None:
        state = self._writers.get(known.head.writer)
        if state is None:
            self._elsewhere.setdefault(known.head.writer, []).append(known)
        elif known.head.sequence <= state.sequence:
            self._compare(state, known)
        else:
            state.known.append(known)

    def _compare(self, state: _Writer, known: KnownHead) -> None:
        head = known.head
        if head.sequence not in state.recent:
            return
        hash_, place, time = state.recent[head.sequence]
        if hash_ != head.hash:
            self._find_in(
                state,
                "changed",
                place,
                "record {n} of the writer {writer} has another hash by {source}",
                n=head.sequence,
                writer=head.writer,
                source=known.source,
            )
        elif head.sequence > state.covered and state.finding is None:
            state.covered, state.covered_time = head.sequence, time

    def _require_ends(self, writer: str, state: _Writer) -> None:
        beyond = [each for each in state.known if each.head.sequence > state.sequence]
        if beyond:
            last = max(beyond, key=lambda each: each.head.sequence)
            self._find_in(
                state,
                "cut off",
                state.place,
                "the writer {writer} has record {n} by {source}; its records end at {last}",
                writer=writer,
                n=last.head.sequence,
                source=last.source,
                last=state.sequence,
            )

    def _find_in(
        self, state: _Writer, fault: Fault, place: str, detail: str, **values: object
    ) -> None:
        """Keep the first finding of a writer: the later ones follow from it."""
        if state.finding is None:
            state.finding = len(self._findings)
            self._find(fault, place, detail, **values)

    def _find(self, fault: Fault, place: str, detail: str, **values: object) -> None:
        if len(self._findings) < MAXIMUM_FINDINGS:
            self._findings.append(describe(fault, place, detail, **values))


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def _belongs(at: datetime | None, first_at: datetime | None) -> bool:
    """Return whether files that begin at ``first_at`` must have a writer of the time ``at``."""
    return at is not None and (first_at is None or at > first_at + _SLACK)
