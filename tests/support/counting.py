"""Processes that count for the metrics, as those of a server do."""

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from authz_server.metrics.observer import METRICS_FOLDER_VARIABLE

# The library chooses how it counts when it is imported: so the counting is not done in the test's
# own process.
_SCRIPT = """
import json, sys
from authz_server.metrics.files import open_observer

observer = open_observer()
for line in sys.stdin:
    method, arguments, named = json.loads(line)
    getattr(observer, method)(*arguments, **named)
    print(flush=True)
"""


class CountingProcess:
    """Calls an observer's methods in a process of its own, each done when the call returns."""

    def __init__(self, folder: Path) -> None:
        environment = {METRICS_FOLDER_VARIABLE: str(folder), "PYTHONPATH": ":".join(sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    @property
    def process_id(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, method: str, *arguments: object, **named: object) -> None:
        """Call one method."""
        self._process.stdin.write(json.dumps([method, arguments, named]) + "\n")
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            raise RuntimeError(f"{method} failed")

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
