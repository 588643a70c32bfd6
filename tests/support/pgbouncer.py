"""PgBouncer before a PostgreSQL server, in any of its pooling modes."""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.not_run import skip_as_not_run
from support.ports import release_port, reserve_port
from support.postgresql_access import ROLE, PostgresAccess, database_name
from support.tied_process import end_process, start_tied

_READY_SECONDS = 20.0
_PLACES = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"


@contextmanager
def pgbouncer(server: PostgresAccess, url: str, pool_mode: str, **settings: str) -> Iterator[str]:
    """Yield the URL of the database through a pooler in ``pool_mode``.

    Args:
        server: the PostgreSQL server.
        url: of a database on it.
        pool_mode: ``session``, ``transaction`` or ``statement``.
        settings: further lines of its configuration.
    """
    program = shutil.which("pgbouncer", path=_PLACES)
    if program is None:
        skip_as_not_run("a database behind PgBouncer", "pgbouncer")
    folder, port, name = (
        Path(tempfile.mkdtemp(prefix="pgbouncer-")),
        reserve_port(),
        database_name(url),
    )
    lines = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "plain",
        "auth_file": str(folder / "users"),
        "pool_mode": pool_mode,
        **settings,
    }
    (folder / "users").write_text(f'"{ROLE}" "{server.password}"\n')
    (folder / "ini").write_text(
        f"[databases]\n{name} = host=127.0.0.1 port={server.port}\n[pgbouncer]\n"
        + "".join(f"{key} = {value}\n" for key, value in lines.items())
    )
    user = "nobody" if os.geteuid() == 0 else None
    for path in (folder, folder / "users", folder / "ini"):
        path.chmod(0o755)
    with (folder / "log").open("ab") as log:
        process = start_tied([program, str(folder / "ini")], output=log, user=user)
    try:
        _await_listening(port, folder / "log")
        yield f"postgresql://{ROLE}:{server.password}@127.0.0.1:{port}/{name}"
    finally:
        end_process(process)
        release_port(port)
        shutil.rmtree(folder)


def _await_listening(port: int, log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"PgBouncer did not start:\n{log.read_text()}")
