"""Find and read the files of audit records, rotated and compressed ones too."""

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, cast

from authz_server.audit.sink import is_stream

_NUMBERED = re.compile(r"\.(\d{1,6})(\.gz)?")
_DATED = re.compile(r"[-.]([0-9T:_-]{6,24})(\.gz)?")


def find_audit_files(destination: str) -> tuple[Path, ...]:
    """Return the file of audit records after those that it was rotated to, the oldest first.

    Rotated files have a number (``audit.jsonl.2.gz`` is older than ``audit.jsonl.1``) or a date
    (``audit.jsonl-20300102``) after the name of the file.

    Args:
        destination: the destination in the settings; a stream has no files.
    """
    if is_stream(destination):
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
    return (*rotated, *([path] if path.exists() else ()))


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


def find_first_time(paths: Sequence[Path]) -> datetime | None:
    """Return the time of the first record of the files; None: there is none.

    Raises:
        OSError: a file cannot be read.
    """
    for path in paths:
        with opened_lines(path) as file:
            for line in file:
                with suppress(ValueError, KeyError, TypeError):
                    return datetime.fromisoformat(json.loads(line)["time"])
    return None


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
