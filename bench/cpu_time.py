"""Processor time of process trees and of the whole machine, read from ``/proc``."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
# Fields of /proc/PID/stat (proc(5)), counted from the field after the command's name.
_PARENT = 1
_USED = slice(11, 15)  # user and system time: its own, then that of children that were waited for
# Fields of the first line of /proc/stat, counted from the field after "cpu".
_IDLE = slice(3, 5)  # idle and waiting for input or output
_ALL = slice(0, 8)  # the two further fields are part of the first two


class Process(NamedTuple):
    """One process: the id of its parent, and its processor time in seconds."""

    parent: int
    seconds: float


@dataclass(frozen=True)
class Snapshot:
    """Processor time at one moment.

    Attributes:
        taken_at: seconds of the monotonic clock.
        machine_seconds: time that all processors were not idle. Includes interrupts and the time
            that a hypervisor gave to other machines.
        processes: every process by its id.
    """

    taken_at: float
    machine_seconds: float
    processes: Mapping[int, Process]

    def tree(self, root: int) -> Iterator[int]:
        """Return a process and its descendants, as far as they still run."""
        waiting = [root]
        while waiting:
            current = waiting.pop()
            if current in self.processes:
                yield current
            waiting += [
                each for each, process in self.processes.items() if process.parent == current
            ]

    def tree_seconds(self, root: int) -> float:
        """Return the time of a process, its descendants, and those of them that have ended."""
        return sum(self.processes[each].seconds for each in self.tree(root))


def take_snapshot() -> Snapshot:
    """Read the processor time of the machine and of every process."""
    processes = {}
    for path in _PROC.iterdir():
        if path.name.isdigit():
            try:
                text = (path / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended meanwhile
            fields = text.rpartition(")")[2].split()
            used = sum(map(int, fields[_USED])) / _TICKS_PER_SECOND
            processes[int(path.name)] = Process(int(fields[_PARENT]), used)
    first_line = (_PROC / "stat").read_text().partition("\n")[0]
    ticks = [int(field) for field in first_line.split()[1:]]
    busy = (sum(ticks[_ALL]) - sum(ticks[_IDLE])) / _TICKS_PER_SECOND
    return Snapshot(time.monotonic(), busy, processes)


def cores_of_others(before: Snapshot, after: Snapshot, measured: Iterable[int]) -> float:
    """Return how many cores were used by what is not measured.

    Args:
        before: the start of the period.
        after: its end.
        measured: the roots of the process trees that are measured. The benchmark's own process is
            left out too, with the load generators that it started and waited for.
    """
    own = os.getpid()
    allowed = after.processes[own].seconds - before.processes[own].seconds
    allowed += sum(after.tree_seconds(root) - before.tree_seconds(root) for root in measured)
    used = after.machine_seconds - before.machine_seconds - allowed
    return max(0.0, used / (after.taken_at - before.taken_at))
