"""Who may read a file with a secret: judged by owner and group, as PostgreSQL judges its key file.

A file of this process's account is for it alone. One that root owns may be readable by its group,
which is how agents and volumes of Kubernetes with ``fsGroup`` hand over secrets.
"""

import os
import stat
from typing import NamedTuple

_BEYOND_OWNER = stat.S_IRWXG | stat.S_IRWXO
_BEYOND_GROUP_READING = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
_ROOT = 0


class Exposure(NamedTuple):
    """A fault of a file, worded to follow its name, and the command that mends it."""

    problem: str
    command: str


def find_exposure(status: os.stat_result) -> Exposure | None:
    """Return what is wrong with the owner or the mode of a secret file, or None.

    Args:
        status: Of the file that is read, not of a link to it.
    """
    account, owner = os.geteuid(), status.st_uid
    if owner not in {account, _ROOT}:
        return Exposure("is owned by neither this account nor root", f"chown {account}")
    if owner == account and status.st_mode & _BEYOND_OWNER:
        return Exposure("is open to others than its owner", "chmod 600")
    if status.st_mode & _BEYOND_GROUP_READING:
        return Exposure("is open to others than root and readers of its group", "chmod 640")
    return None
