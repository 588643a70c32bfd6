"""The one PostgreSQL server of a test run, shared by all its worker processes.

Whoever needs it holds a shared lock, the lease, on a file of the run's directory. The first starts
a guardian, a process that owns the server and waits to hold the lease alone: that comes true when
the last one has let go or died, in whatever way. Then it stops the server, deletes its data, ends.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.postgresql import PostgresServer
from support.postgresql_access import PostgresAccess

_START_SECONDS = 90.0
_END_SECONDS = 30.0
_LEASE = "postgresql.lease"
_STARTING = "postgresql.starting"
_ALIVE = "postgresql.alive"
_STATE = "postgresql.json"


@contextlib.contextmanager
def shared_postgresql(run_directory: Path) -> Iterator[PostgresAccess]:
    """Give access to the run's server, started if nobody did so yet."""
    with (run_directory / _LEASE).open("ab") as lease:
        with exclusively(run_directory / _STARTING):
            fcntl.flock(lease, fcntl.LOCK_SH)
            state = _read_state(run_directory) or _start_guardian(run_directory)
        yield PostgresAccess(port=state["port"], password=state["password"])


@contextlib.contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Hold the lock file at `path` alone among all processes for as long as the block lasts."""
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def await_end(run_directory: Path) -> None:
    """Return when no server of this run is left; every lease must have been given back."""
    deadline = time.monotonic() + _END_SECONDS
    with (run_directory / _ALIVE).open("ab") as alive:
        while True:
            try:
                return fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def _read_state(run_directory: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((run_directory / _STATE).read_text())
    except FileNotFoundError:
        return None
    if "error" in state:
        raise RuntimeError(state["error"])
    return state


def _start_guardian(run_directory: Path) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "support.shared_postgresql", str(run_directory)]
    with (run_directory / "postgresql.guardian.log").open("ab") as log:
        subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if state := _read_state(run_directory):
            return state
        time.sleep(0.02)
    raise RuntimeError("the PostgreSQL server of the test run did not start")


def _publish(run_directory: Path, state: dict[str, Any]) -> None:
    draft = run_directory / f"{_STATE}.draft"
    draft.write_text(json.dumps(state))
    draft.rename(run_directory / _STATE)


def _guard(run_directory: Path) -> None:
    """Own the server until nobody leases it any more."""
    with (run_directory / _LEASE).open("ab") as lease, PostgresServer() as server:
        _publish(run_directory, {"port": server.port, "password": server.password})
        fcntl.flock(lease, fcntl.LOCK_EX)
        # Before the server stops: who comes from here on waits for the lease, then starts anew.
        (run_directory / _STATE).unlink()


def _main(run_directory: Path) -> None:
    # A child of nobody in the run, so that it outlives whichever worker came first.
    if os.fork():
        return
    os.setsid()
    with exclusively(run_directory / _ALIVE):
        try:
            _guard(run_directory)
        except Exception as error:
            _publish(run_directory, {"error": repr(error)})
            raise


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
