"""Check that the machine is free enough to compare processor time."""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from bench.cpu_time import cores_of_others, take_snapshot

#: How much of one core processes that are not measured may use.
LIMIT_CORES = 0.05
#: How often a turn during which others were busy is repeated.
REPEATS = 3
_WINDOW_SECONDS = 1.0


class FreeCores:
    """Waits for free cores, and keeps a record of the turns that were measured without them.

    One object serves one part of the benchmark.
    """

    def __init__(self, patience_seconds: float, *, allow_busy: bool) -> None:
        """Create it.

        Args:
            patience_seconds: how long all waits of the part may take together.
            allow_busy: measure without waiting or repeating.
        """
        self._patience = 0.0 if allow_busy else patience_seconds
        self._busy_turns: list[float] = []
        self._turns = 0

    @contextmanager
    def suspended(self, roots: Iterable[int]) -> Iterator[None]:
        """Suspend process trees: a contender that is not measured compiles or tidies up at times.

        Does nothing without patience: the second that :meth:`await_free` waits lets the contender
        that runs again catch up with its timers.
        """
        snapshot = take_snapshot()
        trees = [each for root in roots if self._patience > 0 for each in snapshot.tree(root)]
        try:
            _send(signal.SIGSTOP, trees)
            yield
        finally:
            _send(signal.SIGCONT, trees)

    def await_free(self) -> None:
        """Return when everything but the benchmark was quiet for a second, or patience is over."""
        is_waiting = False
        while self._patience > 0:
            before = take_snapshot()
            time.sleep(_WINDOW_SECONDS)
            after = take_snapshot()
            others = cores_of_others(before, after, ())
            if others < LIMIT_CORES:
                return
            if not is_waiting:
                print(f"  waiting: other processes use {others:.0%} of a core", flush=True)
            is_waiting = True
            self._patience -= after.taken_at - before.taken_at

    def may_repeat(self, others_cores: float, *, repeats: int) -> bool:
        """Return whether a turn during which others used so much is measured again."""
        return others_cores >= LIMIT_CORES and repeats < REPEATS and self._patience > 0

    def record(self, others_cores: float) -> None:
        """Count a turn that is kept."""
        self._turns += 1
        if others_cores >= LIMIT_CORES:
            self._busy_turns.append(others_cores)

    def objection(self) -> str:
        """Return why the part has no ratios; empty if its ratios mean something."""
        if not self._busy_turns:
            return ""
        return (
            f"The machine was busy: in {len(self._busy_turns)} of {self._turns} turns other "
            f"processes used {LIMIT_CORES:.0%} of a core or more, up to "
            f"{max(self._busy_turns):.0%} of a core"
        )


def _send(number: signal.Signals, process_ids: Iterable[int]) -> None:
    for each in process_ids:
        with suppress(ProcessLookupError):
            os.kill(each, number)
