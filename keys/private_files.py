"""Check owner and mode of secret files by PostgreSQL's rules for its key file.

A file of this process's account must be accessible only to it. A file owned by root may be readable
by its group: this is how agents and Kubernetes volumes with ``fsGroup`` provide secrets.
"""

import os
import stat
from typing import NamedTuple

_BEYOND_OWNER = stat.S_IRWXG | stat.S_IRWXO
_BEYOND_GROUP_READING = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
_ROOT = 0


class Exposure(NamedTuple):
    """A problem of a file, worded to follow its name, and the command that fixes it."""

    problem: str
    command: str


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
