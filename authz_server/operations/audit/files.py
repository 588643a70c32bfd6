"""Find and read the files of audit records, rotated and compressed ones too."""

import gzip
import json
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from authz_server.audit.time_limit import require_time
from authz_server.settings import STREAMS

_BEGINNING = b'{"time":"'
#: The place of the time in a line.
_TIME = slice(len(_BEGINNING), len(_BEGINNING) + len("2030-01-02T03:04:05.678"))
_CLOCK_STEP = timedelta(hours=1)
_BLOCK_BYTES = 1_048_576
_LINES_BETWEEN_CHECKS = 4_096
_NUMBERED = re.compile(r"\.(\d{1,6})(\.gz)?")
_Line = TypeVar("_Line")
_DATED = re.compile(r"[-.]([0-9T:_-]{6,24})(\.gz)?")


def find_audit_files(destination: str) -> tuple[Path, ...]:
    """Return the file of audit records after those that it was rotated to, the oldest first.

    Rotated files have a number (``audit.jsonl.2.gz`` is older than ``audit.jsonl.1``) or a date
    (``audit.jsonl-20300102``) after the name of the file.

    Args:
        destination: the destination in the settings; a stream has no files.
    """
    if destination in STREAMS:
        return ()
    path = Path(destination)
    numbered: list[tuple[int, Path]] = []
    dated: list[tuple[str, Path]] = []
    for each in path.parent.glob(f"{_escaped(path.name)}?*"):
        rest = each.name.removeprefix(path.name)
        if found := _NUMBERED.fullmatch(rest):
            numbered.append((-int(found[1]), each))
        elif found := _DATED.fullmatch(rest):
            dated.append((found[1], each))
    rotated = [each for _, each in sorted(dated)] + [each for _, each in sorted(numbered)]
    # A pipe has one reader, the collector; reading it would take records from it.
    return tuple(each for each in (*rotated, path) if each.is_file())


@contextmanager
def opened_lines(path: Path) -> Iterator[IO[bytes]]:
    """Yield the open file, which is decompressed if its name ends with ``.gz``.

    Raises:
        OSError: the file cannot be read.
    """
    if path.suffix != ".gz":
        with path.open("rb") as file:
            yield file
        return
    with gzip.open(path) as compressed:
        yield cast("IO[bytes]", compressed)


def within_time(lines: Iterable[_Line]) -> Iterator[_Line]:
    """Yield lines, or rows, until the time limit.

    Raises:
        ReadingTooLongError: it has passed.
    """
    for number, line in enumerate(lines):
        if number % _LINES_BETWEEN_CHECKS == 0:
            require_time()
        yield line


def read_time(record: Mapping[str, Any]) -> datetime:
    """Return the time of a record of a file, in UTC.

    Args:
        record: the members of its line.

    Raises:
        KeyError: it has no time.
        TypeError: its time is not text, or it has no members.
        ValueError: its time has no zone, or is none that UTC has.
    """
    at = datetime.fromisoformat(record["time"])
    if at.tzinfo is None:
        raise ValueError("a time has a zone")
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time that UTC does not have") from error


def find_first_time(paths: Sequence[Path]) -> datetime | None:
    """Return the time of the first record of the files; None: there is none.

    Raises:
        OSError: a file cannot be read.
    """
    for path in paths:
        with opened_lines(path) as file:
            for line in file:
                with suppress(ValueError, KeyError, TypeError, RecursionError):
                    return read_time(json.loads(line))
    return None


class Period:
    """Compares the times of lines as text: parsing takes longer.

    Args:
        since: the time of the first record; None: no beginning.
        until: the time of the last record; None: no end.
    """

    def __init__(self, since: datetime | None, until: datetime | None) -> None:
        self._since = _text(since) if since else b""
        self._until = _text(until) if until else b"~"
        # Lines after this time are later than the period, also after a step of the clock.
        self._latest = _text(until, _CLOCK_STEP) if until else b"~"
        self._since_at = since
        # A clock that was set back within the file does not end the search.
        self._end = _text(since, -_CLOCK_STEP) if since else b""

    def leaves_out(self, line: bytes) -> bool:
        """Return whether the line is outside of the period."""
        return not self._since <= line[_TIME] <= self._until

    def find_lines(self, path: Path) -> Iterator[bytes]:
        """Yield the lines of a file, the last first, without most of those after the period.

        Raises:
            OSError: the file cannot be read.
        """
        if path.suffix != ".gz":
            yield from lines_backwards(path, self._latest)
        elif not self._leaves_out_file(path):
            yield from lines_backwards(path)

    def _leaves_out_file(self, path: Path) -> bool:
        """Return whether a compressed file begins after the period, or ended before it."""
        since = self._since_at
        written_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        if since is not None and written_at + _CLOCK_STEP < since:
            return True
        with opened_lines(path) as file:
            first = file.readline()
        return first.startswith(_BEGINNING) and first[_TIME] > self._latest

    def is_later(self, line: bytes) -> bool:
        """Return whether the line is later than the period."""
        return line[_TIME] > self._until

    def ends_before(self, line: bytes) -> bool:
        """Return whether this line and those before it are older than the period."""
        return line.startswith(_BEGINNING) and line[_TIME] < self._end


def _text(at: datetime, later: timedelta = timedelta()) -> bytes:
    moved = at.astimezone(UTC)
    with suppress(OverflowError):
        moved += later
    return moved.isoformat(timespec="milliseconds")[:23].encode()


def lines_backwards(path: Path, latest: bytes = b"~") -> Iterator[bytes]:
    """Yield the lines of a file, the last first; a compressed file is read whole.

    Args:
        path: the file.
        latest: the text of a time; lines at the end of an uncompressed file that are later are
            left out.

    Raises:
        OSError: the file cannot be read.
    """
    with opened_lines(path) as file:
        if path.suffix == ".gz":
            yield from reversed(deque(within_time(file)))
            return
        position, rest = _find_end(file, latest), b""
        while position:
            size = min(_BLOCK_BYTES, position)
            position -= size
            file.seek(position)
            first, *lines = (file.read(size) + rest).split(b"\n")
            rest = first
            yield from reversed(lines)
        yield rest


def lines_since(file: IO[bytes], since: datetime) -> Iterator[bytes]:
    """Yield the first line of a file, then its lines from a time on, after some before that time.

    Args:
        file: an open file that can seek.
        since: the time.
    """
    yield file.readline()
    begun = file.tell()
    # A clock that was set back leaves later lines before earlier ones.
    place = _find_end(file, _text(since, -_CLOCK_STEP)) - 2 * _BLOCK_BYTES
    file.seek(max(place, begun))
    if place > begun:
        file.readline()
    yield from file


def _find_end(file: IO[bytes], latest: bytes) -> int:
    """Return the place after which every line is later than a time."""
    low, high = 0, file.seek(0, os.SEEK_END)
    if latest == b"~":
        return high
    while high - low > _BLOCK_BYTES:
        middle = (low + high) // 2
        at = _time_after(file, middle, high)
        if at is None or at > latest:
            high = middle
        else:
            low = middle
    file.seek(high)
    return high + len(file.readline())


def _time_after(file: IO[bytes], place: int, end: int) -> bytes | None:
    """Return the time of the first record that begins between two places; None: none does."""
    file.seek(place)
    file.readline()
    while file.tell() < end:
        line = file.readline()
        if line.startswith(_BEGINNING):
            return line[_TIME]
    return None


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
