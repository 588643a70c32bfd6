"""How much processor time a process and all its descendants have used."""

import os
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
# Places in /proc/PID/stat (proc(5)), counted from the field after the command's name.
_PARENT = 1
_USED = slice(11, 15)  # user and system time: its own, then that of children that have ended


def used_seconds(process_id: int) -> float:
    """Return user and system time of the process tree, with that of descendants that have ended."""
    stats = _all_stats()
    ticks, waiting = 0, [process_id]
    while waiting:
        current = waiting.pop()
        if current in stats:
            ticks += sum(map(int, stats[current][_USED]))
        waiting += [each for each, stat in stats.items() if int(stat[_PARENT]) == current]
    return ticks / _TICKS_PER_SECOND


def _all_stats() -> dict[int, list[str]]:
    stats = {}
    for path in _PROC.iterdir():
        if path.name.isdigit():
            try:
                text = (path / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended meanwhile
            stats[int(path.name)] = text.rpartition(")")[2].split()
    return stats
