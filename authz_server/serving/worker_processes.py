"""Starts worker processes: forks where that is safe, else runs a new program.

A fork shares what the main process has imported, so that a server imports its libraries once. It is
safe only while no other thread runs, which may hold a lock at the fork: until the health listener
starts. Later workers, which replace others or have new settings, import everything again.
"""

import ctypes
import os
import pickle
import signal
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NoReturn, Protocol

import msgspec

from authz_server.serving.private_files import open_private_file
from authz_server.serving.self_check import Report, read_report
from authz_server.serving.worker import STANDARD_INPUT, Order, run

#: A worker without a report for this time does not answer.
SILENCE_SECONDS = 5.0
_COMMAND = (sys.executable, "-m", "authz_server.serving.worker")
#: The threads of this process, on Linux. Elsewhere, system libraries may not survive a fork.
_THREADS = Path("/proc/self/task")
_DESCRIPTORS = Path("/proc/self/fd")
#: These may be sockets, of the journal for example.
_STANDARD_STREAMS = frozenset({0, 1, 2})
#: Signals that the main process handles; a new process handles them in its own way.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
#: The variable and the parameter of glibc that limit the memory pools of threads.
_POOLS_VARIABLE = "MALLOC_ARENA_MAX"
_POOLS_PARAMETER = -8


class WorkerProcess(Protocol):
    """A child process, with the methods of :class:`subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """The process id."""

    @property
    def returncode(self) -> int | None:
        """The exit status; negative after a signal; None while it runs, as far as is known."""

    @property
    def stdin(self) -> IO[bytes] | None:
        """The pipe to its standard input, which is open while this process runs."""

    def poll(self) -> int | None:
        """Return the exit status; None while the process runs."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


class ForkedProcess:
    """A forked child process.

    Args:
        pid: the process id.
        stdin: the pipe to its standard input.
    """

    def __init__(self, pid: int, stdin: IO[bytes]) -> None:
        self.pid = pid
        self.stdin = stdin
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status; None while the process runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        # The id of a process that was waited for may be another's.
        if self.poll() is None:
            os.kill(self.pid, number)


@dataclass(eq=False)
class Worker:
    """One worker process, as the main process knows it.

    Attributes:
        process: the process.
        report: the descriptor of the pipe with its reports.
        started_at: the start, by the monotonic clock.
        reported_at: the time of its last report; 0 before the first.
        latest: its last report.
        ending_at: the time by which it must stop; 0 while it serves.
        waits: whether it accepts no connections yet.
    """

    process: WorkerProcess
    report: int
    started_at: float
    reported_at: float = 0.0
    latest: Report = field(default_factory=Report)
    ending_at: float = 0.0
    waits: bool = False
    unread: bytes = b""

    def read_reports(self) -> None:
        """Read the reports that have come; keep the last.

        A report is torn where the pipe is full. It counts as one without content.
        """
        try:
            read = os.read(self.report, 65_536)
        except OSError:
            return
        *lines, self.unread = (self.unread + read).split(b"\n")
        if lines:
            self.reported_at = time.monotonic()
            with suppress(msgspec.MsgspecError):
                self.latest = read_report(lines[-1])

    def let_accept(self) -> None:
        """Let a worker that waits accept connections."""
        self.waits = False
        if self.process.stdin is not None:
            # It may have ended; then another one starts.
            with suppress(OSError):
                self.process.stdin.write(b"\n")
                self.process.stdin.flush()

    def is_silent(self, now: float) -> bool:
        """Return whether it has served and sends no more reports; ``now``: the monotonic clock."""
        return bool(self.reported_at) and now - self.reported_at > SILENCE_SECONDS

    def descriptors(self) -> Iterator[int]:
        """Yield the ends of its pipes that the main process has open."""
        yield self.report
        if self.process.stdin is not None:
            yield self.process.stdin.fileno()

    def close(self) -> None:
        """Close the pipes of a process that ended."""
        os.close(self.report)
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()


def start_worker(order: Order, descriptors: Iterable[int]) -> WorkerProcess:
    """Start a worker.

    Args:
        order: its start parameters.
        descriptors: the open files of this process that are not the worker's.
    """
    others = tuple(descriptors)
    if may_fork((*others, *order.listeners)):
        return fork_worker(order, others)
    return spawn_worker(order)


def may_fork(known: Collection[int] = ()) -> bool:
    """Return whether a fork of this process shares nothing that only one process may use.

    The process must have one thread alone, so that no lock is held. It must not have used a PKCS#11
    module: not every module can be used again in a fork. No connection may be open, such as one
    that a plugin opens when it is imported.

    Args:
        known: sockets that may be open.
    """
    if "pkcs11" in sys.modules:
        return False
    try:
        threads = len(list(_THREADS.iterdir()))
        opened = {int(each.name) for each in _DESCRIPTORS.iterdir()}
    except OSError:
        return False
    return threads == 1 and not any(map(_is_socket, opened - {*known} - _STANDARD_STREAMS))


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False  # of the listed folder itself, which is closed


def limit_memory_pools() -> None:
    """Limit the memory pools of threads, most of which wait, here and in child processes."""
    if _POOLS_VARIABLE in os.environ:
        return
    os.environ[_POOLS_VARIABLE] = "2"
    # The variable is read when a program starts; a fork has the parameters of its parent.
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_POOLS_PARAMETER, 2)


def spawn_worker(order: Order) -> WorkerProcess:
    """Start a worker as a new program."""
    # A pipe would hold this process up until the worker reads: an order has whole TLS files.
    with open_private_file(pickle.dumps(order)) as file:
        written = file.fileno()
        return subprocess.Popen(  # noqa: S603 - this very program
            (*_COMMAND, str(written)),
            stdin=subprocess.PIPE,
            pass_fds=(*order.listeners, order.report, order.table, written),
        )


def fork_worker(order: Order, descriptors: Iterable[int]) -> WorkerProcess:
    """Start a worker as a fork of this process, which must have one thread alone.

    Args:
        order: its start parameters.
        descriptors: the open files of this process that are not the worker's.
    """
    reading, writing = os.pipe()
    try:
        process_id = _fork(order, reading, (*descriptors, writing))
    except OSError:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    return ForkedProcess(process_id, open(writing, "wb", buffering=0))  # noqa: PTH123 - the supervisor closes it


def _fork(order: Order, reading: int, descriptors: Iterable[int]) -> int:
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    # A signal for the main process must not reach its handlers in the fork.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        process_id = os.fork()
        if not process_id:
            _become_worker(order, reading, descriptors, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process_id


def _become_worker(
    order: Order, reading: int, descriptors: Iterable[int], mask: Iterable[signal.Signals | int]
) -> NoReturn:
    """Run a worker in a fork. Never return: the frames and exit paths are the main process's."""
    try:
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        for each in descriptors:
            os.close(each)
        os.dup2(reading, STANDARD_INPUT)
        os.close(reading)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        run(order)
    except BaseException:  # noqa: BLE001 - a fork ends here, for any exception
        traceback.print_exc()
    finally:
        os._exit(1)
