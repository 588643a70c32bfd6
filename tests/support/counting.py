"""Processes that count for the metrics, as those of a server do."""

import pickle
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from authz_server.metrics.files import METRICS_FOLDER_VARIABLE

# The library chooses how it counts when it is imported: so the counting is not done in the test's
# own process.
_SCRIPT = """
import pickle, sys
from authz_server.metrics.files import open_recorder

recorder = open_recorder()
while True:
    order = pickle.load(sys.stdin.buffer)
    if isinstance(order, str):
        getattr(recorder, order)()
    else:
        recorder.receivers[type(order)](order)
    print(flush=True)
"""


class CountingProcess:
    """Records events in a process of its own, each done when the call returns."""

    def __init__(self, folder: Path) -> None:
        environment = {METRICS_FOLDER_VARIABLE: str(folder), "PYTHONPATH": ":".join(sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    @property
    def process_id(self) -> int:
        """Its process id."""
        return self._process.pid

    def record(self, order: object) -> None:
        """Record an event, or call the method of a name."""
        pickle.dump(order, self._process.stdin)
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            raise RuntimeError(f"{order} failed")

    def end(self) -> None:
        """End it."""
        self._process.communicate(timeout=10)


@contextmanager
def counting(folder: Path):
    """Yield a process that counts in `folder`."""
    process = CountingProcess(folder)
    try:
        yield process
    finally:
        process.end()
