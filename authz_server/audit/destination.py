"""The destination of audit records: a standard stream or a file."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from authz_server.settings import STREAMS, SettingsError
from authz_server.settings.sources import describe_refusal


def require_destination(destination: str) -> None:
    """Refuse a file that cannot be written, without creating it: its first writer owns it.

    Raises:
        SettingsError: the file cannot be opened, or its folder cannot hold it.
    """
    if destination in STREAMS:
        return
    path = Path(destination)
    try:
        if path.exists():
            flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
            os.close(os.open(path, flags))
        elif not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        problem = f"{path} cannot be opened for appending ({describe_refusal(path, error)})"
        raise SettingsError(problem, key="audit.destination") from error


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
