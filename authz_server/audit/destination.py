"""The destination of audit records: a standard stream or a file."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from authz_server.settings import STREAMS, SettingsError
from authz_server.settings.sources import describe_refusal

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
_BEGINNING = b'{"time":"'
_EVENT = b'"event":"'


def require_destination(destination: str) -> None:
    """Refuse a file that cannot be written, without creating it: its first writer owns it.

    Raises:
        SettingsError: the file cannot be opened, holds other data, or its disk is full; or its
            folder cannot hold it.
    """
    if destination in STREAMS:
        return
    path = Path(destination)
    try:
        if path.exists():
            descriptor = open_destination(destination, create=False)
            try:
                _require_room(descriptor)
            finally:
                os.close(descriptor)
        elif not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        problem = f"{path} cannot be opened for appending ({describe_refusal(path, error)})"
        raise SettingsError(problem, key="audit.destination") from error


def open_destination(path: str, *, create: bool = True) -> int:
    """Open a file for records and return its descriptor.

    A file with other data, such as a key or the database of the same settings, is not damaged.

    Args:
        path: the file, pipe or device.
        create: make a missing file, for its owner alone.

    Raises:
        OSError: it cannot be opened for appending, or holds something else than records.
    """
    is_new = not Path(path).exists()
    # Write-only and non-blocking: a pipe without a reader must fail rather than wait.
    descriptor = os.open(path, _FLAGS | (os.O_CREAT if create else 0), 0o600)
    try:
        if is_new:
            sync_folder(path)
        elif stat.S_ISREG(os.fstat(descriptor).st_mode) and _holds_other_data(path):
            raise FileExistsError(errno.EEXIST, "it holds something else than audit records", path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _holds_other_data(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            # Empty lines, and a line that was cut off, are of records.
            found = file.read(1_000).lstrip(b"\n")
    except PermissionError:  # a file for appending alone
        return False
    # Another program may have written records with their members in another order.
    is_record = _BEGINNING.startswith(found[: len(_BEGINNING)]) or (
        found.startswith(b'{"') and _EVENT in found
    )
    return not is_record


def _require_room(descriptor: int) -> None:
    """Raise OSError if the disk is full, or the device takes no line."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISCHR(mode):
        os.write(descriptor, b"\n")
    elif stat.S_ISREG(mode):
        disk = os.fstatvfs(descriptor)
        free = disk.f_bavail if os.geteuid() else disk.f_bfree
        if disk.f_blocks and not free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sync_folder(path: str) -> None:
    """Sync the folder, so that the name of a new file survives a crash."""
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(folder)
    finally:
        os.close(folder)


def ends_with_a_line(path: str) -> bool:
    """Return whether the last record is complete; another process may have been cut off.

    A record that is being written looks incomplete, too; the result is only an empty line.
    """
    try:
        with Path(path).open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except OSError:  # moved away or emptied meanwhile
        return True
