"""Starts a program that the operating system ends when the test process that wanted it is gone.

Run as a script with the interpreter's `-I -S` flags: `tied_process.py SIGNAL USER PROGRAM ...`.
The program takes over this process, so its process id is the one that the caller already holds.
"""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_SAME_USER = "-"
_GRACE_SECONDS = 10.0


def start_tied(  # noqa: PLR0913 - the parts of a process start, each with a default
    command: Sequence[str],
    *,
    output: IO[bytes],
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    ending_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, ended with the calling thread by `ending_signal`.

    `user` is the system user that it runs as (only root may name one); stdout and stderr both go
    to `output`.
    """
    wrapper = [sys.executable, "-I", "-S", __file__, str(int(ending_signal)), user or _SAME_USER]
    return subprocess.Popen(
        [*wrapper, *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=None if environment is None else dict(environment),
        cwd=directory,
        start_new_session=True,
    )


def end_process(
    process: subprocess.Popen[bytes],
    first_signal: signal.Signals = signal.SIGTERM,
    grace_seconds: float = _GRACE_SECONDS,
) -> int:
    """Ask the process to end; kill its whole session when it does not. Return its exit status."""
    if process.poll() is None:
        process.send_signal(first_signal)
    try:
        return process.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def is_running(process_id: int) -> bool:
    """Tell whether a process still runs: one that its parent has not buried yet does not."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(") ")[2][0] != "Z"


def await_end_of(process_ids: Iterable[int], deadline_seconds: float = _GRACE_SECONDS) -> None:
    """Return when none of the processes runs any more; TimeoutError when one will not end."""
    deadline = time.monotonic() + deadline_seconds
    for process_id in process_ids:
        while is_running(process_id):
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {process_id} does not end")
            time.sleep(0.01)


def become_user(name: str) -> None:
    """Give up root for the user `name`, groups included."""
    entry = pwd.getpwnam(name)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def tie_to_parent(number: int) -> None:
    """Have Linux send signal `number` when the parent ends; elsewhere there is no such thing."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the test process ended before its program began")


def _main(arguments: Sequence[str]) -> None:
    number, user, *command = arguments
    if user != _SAME_USER:
        become_user(user)
    # After the change of user, because that clears the setting.
    tie_to_parent(int(number))
    # A shell starts what runs in its background, such as the tests, with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execvp(command[0], command)  # noqa: S606 - a program of the test suite, no shell


if __name__ == "__main__":
    _main(sys.argv[1:])
