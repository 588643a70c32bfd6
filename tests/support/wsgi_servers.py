"""Other WSGI servers, started by the lines of docs/operations.md with ports and paths of a test."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import authz_server
from authz_server.metrics.files import METRICS_FOLDER_VARIABLE
from support.live_server import answers
from support.not_run import skip_as_not_run
from support.ports import release_port, reserve_port
from support.source_tree import ROOT
from support.tied_process import is_running, start_tied

_SECTION = "\n## Other WSGI servers\n"
_LISTENER = "127.0.0.1:8080"
_READY_SECONDS = 20.0
_GRACE_SECONDS = 10.0
_SHOWN_CHARACTERS = 3_000
_APACHE = """\
ServerRoot "{directory}"
ServerName localhost
PidFile "{directory}/apache.pid"
DefaultRuntimeDir "{directory}"
ErrorLog "{directory}/apache-{port}.log"
Listen 127.0.0.1:{port}
LoadModule mpm_event_module "{modules}/mod_mpm_event.so"
LoadModule authz_core_module "{modules}/mod_authz_core.so"
LoadModule wsgi_module "{wsgi}"
WSGISocketPrefix "{directory}/wsgi-socket"
{block}
"""
# Apache serves nothing as root. The Python of a test run by root may be root's alone to read.
_AS_NOBODY = (
    "setpriv",
    "--reuid=nobody",
    "--regid=nogroup",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
)


@dataclass(frozen=True)
class Kind:
    """A server and how it differs from the others.

    Attributes:
        name: its heading in the document.
        added: options or settings besides the documented ones.
        replaced: an option's text in the document, and what stands there instead.
        ending: the signal by which it is ended.
    """

    name: str
    added: str = ""
    replaced: tuple[str, str] = ("", "")
    ending: signal.Signals = signal.SIGTERM


def documented(name: str, language: str) -> str:
    """Return the one block of a server's section that is written in a language."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    _, found, after = text.partition(_SECTION)
    assert found, "docs/operations.md has no section on other WSGI servers"
    section = re.split(r"^## ", after, maxsplit=1, flags=re.MULTILINE)[0]
    _, found, after = section.partition(f"\n### {name}\n")
    assert found, f"docs/operations.md has no section on {name}"
    own = re.split(r"^### ", after, maxsplit=1, flags=re.MULTILINE)[0]
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", own, re.MULTILINE | re.DOTALL)
    return str(block)


class OtherServer:
    """The application under another server, in `directory` with its settings. A context manager."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        self.kind = kind
        self.port = reserve_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        #: Where its processes count for the page of metrics.
        self.metrics = directory / f"metrics-{self.port}"
        self.metrics.mkdir()
        self._directory = directory
        self._log_path = directory / f"{kind.name}-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = _COMMANDS[self.kind.name](self.kind, self.port, self._directory)
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(Path(authz_server.__file__).parents[1]),
            "HOME": str(self._directory),
            METRICS_FOLDER_VARIABLE: str(self.metrics),
        }
        with self._log_path.open("ab") as log:
            self._process = start_tied(
                command, output=log, environment=environment, directory=self._directory
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        release_port(self.port)

    def await_answer(self) -> None:
        """Return when it answers a request."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self._running().poll() is None:
            if answers(f"{self.base_url}/.well-known/jwks.json"):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.kind} does not answer:\n{self.log()[-_SHOWN_CHARACTERS:]}")

    def await_end(self) -> int:
        """Return its exit status when it ends by itself."""
        return self._running().wait(_READY_SECONDS)

    def stop(self) -> float:
        """End it as its operator does; return how many seconds its processes took to end."""
        processes, started = self._process_ids(), time.monotonic()
        self._running().send_signal(self.kind.ending)
        self._running().wait(_GRACE_SECONDS)
        while any(map(is_running, processes)):
            assert time.monotonic() < started + _GRACE_SECONDS, self.log()[-_SHOWN_CHARACTERS:]
            time.sleep(0.02)
        return time.monotonic() - started

    def log(self) -> str:
        """Return everything that the server printed so far."""
        return self._log_path.read_text(errors="replace")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process

    def _process_ids(self) -> list[int]:
        main = self._running().pid
        children = Path(f"/proc/{main}/task/{main}/children").read_text()
        return [main, *map(int, children.split())]


def _shell_command(kind: Kind, port: int, _directory: Path) -> Sequence[str]:
    line = _changed(documented(kind.name, "sh"), kind, port)
    return shlex.split(line.replace("\\\n", " ")) + shlex.split(kind.added)


def _uwsgi(kind: Kind, port: int, directory: Path) -> Sequence[str]:
    settings = directory / f"uwsgi-{port}.ini"
    settings.write_text(_changed(documented(kind.name, "ini"), kind, port) + kind.added)
    return ("uwsgi", "--ini", str(settings))


def _mod_wsgi(kind: Kind, port: int, directory: Path) -> Sequence[str]:
    apache, modules = shutil.which("apache2"), Path("/usr/lib/apache2/modules")
    found = find_spec("mod_wsgi")
    if apache is None or found is None or found.origin is None:
        skip_as_not_run("mod_wsgi", "apt install apache2 apache2-dev, then make acceptance")
    (wsgi,) = (Path(found.origin).parent / "server").glob("mod_wsgi-*.so")
    script = directory / "wsgi" / "authz-server.wsgi"
    script.parent.mkdir(exist_ok=True)
    script.write_text(documented(kind.name, "python"))
    block = _changed(documented(kind.name, "apache"), kind, port)
    for path, here in (
        ("/opt/authz-server", sys.prefix),
        ("/var/lib/authz-server", str(directory)),
        ("/etc/authz-server", str(script.parent)),
    ):
        assert path in block, path
        block = block.replace(path, here)
    settings = directory / f"apache-{port}.conf"
    places = {"directory": directory, "port": port, "modules": modules, "wsgi": wsgi}
    settings.write_text(_APACHE.format(block=block, **places) + kind.added)
    command = (apache, "-f", str(settings), "-DFOREGROUND")
    if os.geteuid() != 0:
        return command
    for path in (directory, *directory.rglob("*")):
        shutil.chown(path, "nobody")
    return (*_AS_NOBODY, *command)


def _changed(block: str, kind: Kind, port: int) -> str:
    if kind.name != "mod_wsgi":
        assert block.count(_LISTENER) == 1, block
        block = block.replace(_LISTENER, f"127.0.0.1:{port}")
    option, instead = kind.replaced
    assert not option or block.count(option) == 1, option
    return block.replace(option, instead) if option else block


_COMMANDS = {
    "gunicorn": _shell_command,
    "uWSGI": _uwsgi,
    "waitress": _shell_command,
    "mod_wsgi": _mod_wsgi,
}
