"""Write files that only their owner can read."""

import codecs
import os
from pathlib import Path

from authz_server.errors import ConflictError


def write_private_file(path: Path, content: bytes) -> None:
    """Write a new file with the mode 0600; an existing one is never overwritten.

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
        file.flush()
        os.fsync(file.fileno())


def without_line_break(content: bytes) -> bytes:
    """Return a file's content without a byte order mark and one trailing line break."""
    return content.removeprefix(codecs.BOM_UTF8).removesuffix(b"\n").removesuffix(b"\r")
