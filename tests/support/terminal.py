"""`authz-server` at a pseudo-terminal of 80 columns, as a person uses it."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Self

import authz_server

DEADLINE_SECONDS = 30
COLUMNS = 80


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
        kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "authz_server", *map(str, arguments)],
            stdin=far,
            stdout=far if whole else subprocess.PIPE,
            stderr=far,
            env=kept | {"PYTHONPATH": str(Path(authz_server.__file__).parents[1]), "TERM": "dumb"},
        )
        os.close(far)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
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
        if self._process.stdout is not None:
            output, _ = self._process.communicate(timeout=DEADLINE_SECONDS)
            return self._process.returncode, output.decode()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self._read():
            assert time.monotonic() < deadline, self._shown
        return self._process.wait(DEADLINE_SECONDS), self._shown.decode().replace("\r\n", "\n")

    def _read(self) -> bool:
        """Read what is there; return whether more may come."""
        poll = select.poll()
        poll.register(self._near, select.POLLIN)
        if not poll.poll(100):
            return True
        try:
            data = os.read(self._near, 4_096)
        except OSError:  # Linux says so at the end
            return False
        self._shown += data
        return bool(data)
