"""The numbers of connections of the workers that share listening sockets.

The main process makes a table with an entry for each worker; each worker writes its own. A client
opens its pool of connections faster than the kernel wakes a second worker. Without the table, the
first one awake takes the whole pool, and the others have nothing to do.
"""

import mmap
import os
import sys
import tempfile

_ENTRY_BYTES = 4
_NONE = 2 ** (8 * _ENTRY_BYTES) - 1
_ABSENT = _NONE.to_bytes(_ENTRY_BYTES, sys.byteorder)
#: A worker may have this part of its connections more than another, and always one.
_PART = 8


def make_table(workers: int) -> int:
    """Return the descriptor of a table in which no worker serves yet.

    Raises:
        OSError: it cannot be made.
    """
    if sys.platform == "linux":
        table = os.memfd_create("authz-server-workers")
    else:
        with tempfile.TemporaryFile() as file:
            table = os.dup(file.fileno())
    os.pwrite(table, _ABSENT * workers, 0)
    return table


def remove_entry(table: int, place: int) -> None:
    """Note in the table ``table``, a descriptor, that the worker at ``place`` serves no more."""
    os.pwrite(table, _ABSENT, place * _ENTRY_BYTES)


class Shares:
    """The table in a worker.

    Args:
        table: the descriptor of the table.
        place: the worker's entry.
    """

    def __init__(self, table: int, place: int) -> None:
        self._counts = memoryview(mmap.mmap(table, 0)).cast("I")
        self._place = place
        self._others = [each for each in range(len(self._counts)) if each != place]

    def write(self, count: int) -> None:
        """Write the number of this worker's connections."""
        self._counts[self._place] = count

    def leave(self) -> None:
        """Remove this worker's entry: it takes no part any more."""
        self._counts[self._place] = _NONE

    def is_ahead(self, count: int) -> bool:
        """Return whether a worker with ``count`` connections leaves the next one to another."""
        counts = self._counts
        return count > min(counts[each] for each in self._others) + max(1, count // _PART)
