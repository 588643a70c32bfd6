"""Check owner and mode of secret files by PostgreSQL's rules for its key file.

A file of this process's account must be accessible only to it. A file owned by root may be readable
by its group: this is how agents and Kubernetes volumes with ``fsGroup`` provide secrets.
"""

import os
import stat
from errno import EINVAL, EISDIR
from pathlib import Path
from typing import BinaryIO, NamedTuple

_BEYOND_OWNER = stat.S_IRWXG | stat.S_IRWXO
_BEYOND_GROUP_READING = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
_ROOT = 0


class NotRegularError(OSError):
    """A path is that of a pipe, a device or a socket."""


class Exposure(NamedTuple):
    """A problem of a file, worded to follow its name, and the command that fixes it."""

    problem: str
    command: str


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading.

    The name may become that of a pipe while this process runs. Opened in the usual way, one without
    a writer would block for ever, with the locks that the caller holds.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR), str(path))
        raise NotRegularError(EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def find_exposure(status: os.stat_result) -> Exposure | None:
    """Return the problem of a secret file's owner or mode, or None.

    Args:
        status: of the file itself, not of a link to it.
    """
    account, owner = os.geteuid(), status.st_uid
    if owner not in {account, _ROOT}:
        return Exposure("is owned by neither this account nor root", f"chown {account}")
    if owner == account and status.st_mode & _BEYOND_OWNER:
        return Exposure("is open to others than its owner", "chmod 600")
    if status.st_mode & _BEYOND_GROUP_READING:
        return Exposure("is open to others than root and readers of its group", "chmod 640")
    return None
