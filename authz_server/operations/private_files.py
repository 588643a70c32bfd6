"""Write files that only their owner can read."""

import codecs
import os
from collections.abc import Iterable
from pathlib import Path

from authz_server.errors import ConflictError


def write_private_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a new file with the mode 0600; an existing one is never overwritten.

    Args:
        path: the path of the file.
        content: its content.
        durable: return when the content is on disk.

    Raises:
        ConflictError: it exists.
        OSError: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConflictError(f"{path} exists: name a new file.") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def sync_files(paths: Iterable[Path]) -> None:
    """Return when the content of files is on disk; many are faster than one after the other."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def without_line_break(content: bytes) -> bytes:
    """Return a file's content without a byte order mark and one trailing line break."""
    return content.removeprefix(codecs.BOM_UTF8).removesuffix(b"\n").removesuffix(b"\r")
