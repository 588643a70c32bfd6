"""Apache of the system, with a configuration of a test."""

import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from support.not_run import skip_as_not_run
from support.ports import release_port, reserve_port
from support.tied_process import end_process, start_tied

_MODULES = Path("/usr/lib/apache2/modules")
_PACKAGES = {"auth_openidc": "libapache2-mod-auth-openidc"}
_READY_SECONDS = 20.0
_USUAL = ("mpm_event", "authn_core", "authz_core")
_SETTINGS = """\
ServerRoot "{directory}"
ServerName localhost
PidFile "{directory}/apache.pid"
DefaultRuntimeDir "{directory}"
DocumentRoot "{directory}/documents"
ErrorLog "{directory}/apache.log"
LogLevel info
Listen 127.0.0.1:{port}
{modules}
{block}
"""


class Apache:
    """A server on a port of its own. A context manager; skips the test where a module is missing.

    Args:
        directory: for its files; the folder `documents` within is served.
        modules: the modules to load besides the usual ones, for example `oauth2`.
        block: further configuration.
        environment: variables of the configuration, over those of the test.
    """

    def __init__(
        self,
        directory: Path,
        modules: Sequence[str],
        block: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        apache = shutil.which("apache2")
        for module in modules:
            if apache is None or not (_MODULES / f"mod_{module}.so").exists():
                package = _PACKAGES.get(module, "libapache2-mod-oauth2")
                skip_as_not_run(f"Apache with mod_{module}", f"apt install {package}")
        self.port = reserve_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.log_path = directory / "apache.log"
        self._environment = {**os.environ, **(environment or {})}
        (directory / "documents").mkdir(exist_ok=True)
        self.log_path.touch()
        loaded = "\n".join(
            f'LoadModule {name}_module "{_MODULES}/mod_{name}.so"' for name in (*_USUAL, *modules)
        )
        settings = directory / "apache.conf"
        settings.write_text(
            _SETTINGS.format(directory=directory, port=self.port, modules=loaded, block=block)
        )
        self._command = [str(apache), "-f", str(settings), "-DFOREGROUND"]
        # Apache serves nothing as root.
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user is not None:
            for path in (directory, *directory.rglob("*")):
                shutil.chown(path, self._user)

    @property
    def process_id(self) -> int:
        """The process id of its main process; only while it runs."""
        return self._process.pid

    def __enter__(self) -> Self:
        with self.log_path.open("ab") as log:
            self._process = start_tied(
                self._command, output=log, user=self._user, environment=self._environment
            )
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.02)
        self.__exit__()
        raise RuntimeError(f"Apache does not listen:\n{self.log_path.read_text()}")

    def __exit__(self, *_: object) -> None:
        end_process(self._process)
        release_port(self.port)
