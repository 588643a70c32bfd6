"""`authz-server` at a pseudo-terminal of 80 columns, as a person uses it.

Each command is a process of its own, forked from one that has imported the program already.
"""

import fcntl
import multiprocessing
import os
import pty
import select
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

DEADLINE_SECONDS = 30
COLUMNS = 80
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(
    [
        "alembic.command",
        "authz_server.app",
        "authz_server.cli.client",
        "authz_server.cli.init",
        "authz_server.cli.keys.revoke",
        "authz_server.cli.resource_server",
        "authz_server.operations.preflight",
        "authz_server.serving.worker",
        "psycopg",
    ]
)


class Terminal:
    """A command at a terminal. A context manager, which ends it.

    Args:
        arguments: of the command.
        whole: standard output goes to the terminal too; else it is read apart.
    """

    def __init__(self, *arguments: object, whole: bool = False) -> None:
        self._near, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        self._shown = b""
        self._output = None if whole else tempfile.NamedTemporaryFile()  # noqa: SIM115 - until the end
        kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        output = None if self._output is None else self._output.name
        self._process = _FORKING.Process(
            target=_run,
            args=(os.ttyname(far), output, tuple(map(str, arguments)), kept | {"TERM": "dumb"}),
        )
        self._process.start()
        # What the command has not opened yet would be at its end already.
        self._far = far

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        if self._output is not None:
            self._output.close()
        os.close(self._far)
        os.close(self._near)

    def until(self, sentence: str) -> str:
        """Return what the terminal showed before a sentence, when it shows it."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while sentence.encode() not in self._shown:
            assert time.monotonic() < deadline, self._shown
            assert self._read(), self._shown
        before, _, self._shown = self._shown.partition(sentence.encode())
        return before.decode()

    def answer(self, text: str) -> None:
        """Type a line."""
        os.write(self._near, f"{text}\n".encode())

    def end(self) -> tuple[int, str]:
        """Return the exit status, and standard output or what the terminal showed last."""
        self._process.join(DEADLINE_SECONDS)
        status = self._process.exitcode
        assert status is not None, self._shown
        if self._output is not None:
            return status, Path(self._output.name).read_text()
        while self._read(0):
            pass
        return status, self._shown.decode().replace("\r\n", "\n")

    def _read(self, milliseconds: int = 100) -> bool:
        """Read what is there; return whether there was something, or more may come."""
        more = milliseconds > 0 and self._process.is_alive()
        poll = select.poll()
        poll.register(self._near, select.POLLIN)
        if not poll.poll(milliseconds):
            return more
        self._shown += os.read(self._near, 4_096)
        return True


def _run(
    terminal: str, output: str | None, arguments: Sequence[str], environment: Mapping[str, str]
) -> None:
    """Become the command, at the terminal of this name."""
    os.environ.clear()
    os.environ.update(environment)
    far = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
    written = far if output is None else os.open(output, os.O_WRONLY)
    for number, opened in enumerate((far, written, far)):
        os.dup2(opened, number)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    from authz_server.cli.root import main  # noqa: PLC0415 - in the command's process alone

    main(arguments, prog_name="authz-server")
