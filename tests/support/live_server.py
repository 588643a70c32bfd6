"""The real server in processes of its own, forked or started as an operator starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Self

from click.testing import CliRunner

import authz_server
from authz_server.cli.root import main
from support.nursery import ForkedServer, can_fork, fork_server
from support.ports import release_port, reserve_port
from support.tied_process import await_end_of, end_process, start_tied

_COMMAND = (sys.executable, "-m", "authz_server")
_READY_SECONDS = 30.0
_GRACE_SECONDS = 15.0


def answers(url: str) -> bool:
    """Return whether a GET of a plain URL succeeds within 2 s."""
    # A client of httpx reads the certificates of the machine first, which takes 50 ms.
    host, _, path = url.partition("://")[2].partition("/")
    connection = HTTPConnection(host, timeout=2)
    with suppress(OSError, HTTPException), closing(connection):
        connection.request("GET", f"/{path}")
        return connection.getresponse().status == HTTPStatus.OK
    return False


class LiveServer:
    """`authz-server serve` on loopback ports of its own. A context manager.

    `write_settings` takes the overrides, with the ports among them, and returns the path of a
    settings file; everything that the server prints is in `log_path`. `prefix` is a command that
    runs what follows it in its own place. The server is forked by the nursery, where that can be,
    unless `unforked`: then it is started as an operator starts it.
    """

    #: What is run with the arguments of `authz-server`.
    command: Sequence[str] = _COMMAND

    def __init__(
        self,
        write_settings: Callable[..., Path],
        directory: Path,
        *,
        workers: int = 1,
        prefix: Sequence[str] = (),
        unforked: bool = False,
        **overrides: Any,
    ) -> None:
        self._prefix = prefix
        self._unforked = unforked
        self.port, self.health_port = reserve_port(), reserve_port()
        self.health_url = f"http://127.0.0.1:{self.health_port}"
        self.log_path = directory / f"server-{self.port}.log"
        ports = {"port": self.port, "health_port": self.health_port, "workers": workers}
        server = overrides.pop("server", {}) | ports
        scheme = "https" if "tls_certificate" in server else "http"
        self.base_url = f"{scheme}://127.0.0.1:{self.port}"
        self._write_settings = write_settings
        self.overrides: Mapping[str, Any] = {"server": server, **overrides}
        self.settings_path = write_settings(**self.overrides)
        self._process: subprocess.Popen[bytes] | ForkedServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        release_port(self.port)
        release_port(self.health_port)

    @property
    def process_id(self) -> int:
        """The process id of the server's main process; only while it was started."""
        return self._running().pid

    def start(self) -> None:
        """Start it and return when the health listener says that it is ready."""
        arguments = ["serve", "--config", str(self.settings_path)]
        starts_unforked = (
            self._unforked or self._prefix or self.command is not _COMMAND or not can_fork()
        )
        with self.log_path.open("ab") as log:
            given: dict[str, Any] = {"output": log, "environment": self._environment()}
            if starts_unforked:
                self._process = start_tied([*self._prefix, *self.command, *arguments], **given)
            else:
                self._process = fork_server(arguments, **given)
        self._await_ready()

    def stop(self) -> int | None:
        """End it as an operator does, by SIGTERM; return its exit status, None if it was ended."""
        if self._process is None:
            return None
        children = self._child_process_ids()
        status = end_process(self._process, signal.SIGTERM, _GRACE_SECONDS)
        self._kill_session()
        await_end_of(children)
        self._process = None
        return status

    def kill(self) -> None:
        """End the main process and every worker at once, as a power cut does."""
        children = self._child_process_ids()
        self._kill_session()
        self._running().wait()
        await_end_of(children)
        self._process = None

    def change_settings(self, **tables: Mapping[str, Any]) -> None:
        """Write the settings file with these values over the present ones, and send SIGHUP."""
        changed = {name: self.overrides.get(name, {}) | table for name, table in tables.items()}
        self.overrides = {**self.overrides, **changed}
        self._write_settings(**self.overrides)
        self.send_signal(signal.SIGHUP)

    def send_signal(self, number: signal.Signals) -> None:
        """Send the main process a signal."""
        os.kill(self.process_id, number)

    def await_log(self, text: str, seconds: float = 30.0) -> str:
        """Return the log once it holds this text."""
        deadline = time.monotonic() + seconds
        while text not in (log := self.log()):
            assert time.monotonic() < deadline, log
            time.sleep(0.05)
        return log

    def kill_main(self) -> None:
        """Kill the main process alone; return when its workers have ended as well."""
        workers = self.worker_process_ids()
        self._running().kill()
        self._running().wait()
        await_end_of(workers)
        self._process = None

    def is_ready(self) -> bool:
        """Tell whether the health listener answers that the server is ready."""
        return answers(f"{self.health_url}/health/ready")

    def worker_process_ids(self) -> list[int]:
        """Return the process ids of the workers, the children of the main process."""
        return self._child_process_ids()

    def log(self) -> str:
        """Return everything that the server printed so far."""
        return self.log_path.read_text(errors="replace")

    def _child_process_ids(self) -> list[int]:
        main = self._running().pid
        try:
            children = Path(f"/proc/{main}/task/{main}/children").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return []
        return [int(each) for each in children.split()]

    def _running(self) -> subprocess.Popen[bytes] | ForkedServer:
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process

    def _environment(self) -> Mapping[str, str]:
        # A server that is killed cannot take its temporary files away.
        return _environment() | {"TMPDIR": str(self.log_path.parent)}

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self._running().poll() is None:
            if self.is_ready():
                return
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"the server did not become ready:\n{self.log()}")

    def _kill_session(self) -> None:
        """Kill whatever is left of the process group; a worker may outlive its main process."""
        with suppress(ProcessLookupError):
            os.killpg(self._running().pid, signal.SIGKILL)


def start_command(
    *arguments: str, output: IO[bytes], directory: Path | None = None
) -> subprocess.Popen[bytes] | ForkedServer:
    """Start `authz-server` with these arguments in a process of its own, forked if possible."""
    given: dict[str, Any] = {"output": output, "environment": _environment()}
    if can_fork():
        return fork_server(arguments, directory=directory, **given)
    return start_tied([*_COMMAND, *arguments], directory=directory, **given)


def run_command(*arguments: str, directory: Path) -> tuple[int, str]:
    """Run `authz-server` in a process as `start_command` does; its status and all it printed."""
    with TemporaryFile() as output:
        status = start_command(*arguments, output=output, directory=directory).wait(60)
        output.seek(0)
        return status, output.read().decode()


def run_cli(
    *arguments: str,
    config: Path | None = None,
    input: str | None = None,  # noqa: A002 - the name that subprocess.run gives it
    timeout_seconds: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run `authz-server` with these arguments; `input` is what it reads from stdin."""
    settings = () if config is None else ("--config", str(config))
    return subprocess.run(
        [*_COMMAND, *arguments, *settings],
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        env=_environment(),
        timeout=timeout_seconds,
        check=False,
    )


def call_cli(*arguments: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `authz-server` in this process; as `run_cli`, 0.8 s of processor time cheaper."""
    settings = () if config is None else ("--config", str(config))
    result = CliRunner().invoke(main, [*arguments, *settings])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


def call_cli_json(*arguments: str, config: Path | None = None) -> Any:
    """Run a command in this process with `--json`, which must succeed; return what it printed."""
    run = call_cli(*arguments, "--json", config=config)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def _environment() -> dict[str, str]:
    """The test's own environment, with the package that the test itself imported found first."""
    return os.environ | {"PYTHONPATH": str(Path(authz_server.__file__).parents[1])}
