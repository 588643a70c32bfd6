"""The section "Install" of docs/operations.md, run as printed, and the server that it installs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import authz_server
from support.built_dist import dist
from support.documents import run_blocks, shell_blocks
from support.ports import release_port, reserve_port
from support.source_tree import ROOT
from support.tied_process import end_process, start_tied

__all__ = ["dist"]

DOCUMENT = "docs/operations.md"
UNIT = "deploy/authz-server.service"
#: Folders of the machine, which a test has below a folder of its own.
PLACES = ("/opt/authz-server", "/var/lib/authz-server", "/etc/systemd/system")
#: What only root may do, and what belongs to the whole machine, is written down instead.
COMMANDS = {
    "useradd": 'echo "useradd $*" >>"$LOG"',
    "systemctl": 'echo "systemctl $*" >>"$LOG"',
    "runuser": '[ "$1 $2 $3" = "-u authz-server --" ] && shift 3 && exec "$@"',
    "install": 'exec /usr/bin/install $(echo "$*" | sed "s/-o authz-server -g authz-server//")',
}
LOUD = {"warning", "error", "critical"}
#: How long a server is watched after it became ready: jobs of a few seconds have run by then.
WATCHED_SECONDS = 7.0


class Machine:
    """A folder that stands for the root of a machine, without a checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "log"
        bin_folder = root / "bin"
        bin_folder.mkdir()
        for name, script in COMMANDS.items():
            (bin_folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (bin_folder / name).chmod(0o755)
        for place in ("opt", "var/lib", "etc/systemd/system", "home"):
            (root / place).mkdir(parents=True)
        # How this machine reaches the package index is no part of the document.
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        pip.pop("PIP_REQUIRE_VIRTUALENV", None)
        self.environment = {
            **pip,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(root / "home"),
            "LOG": str(self.log),
            # A server compiles the modules that it imports; pip would compile all the others too.
            "PIP_NO_COMPILE": "1",
        }

    def inside(self, text: str) -> str:
        for place in PLACES:
            text = re.sub(rf"(?<![\w.]){re.escape(place)}\b", f"{self.root}{place}", text)
        return text

    def follow(self, section: str) -> list[str]:
        """Run the commands of a section of the document; return what each block printed."""
        blocks = [self.inside(b) for b in shell_blocks(DOCUMENT, section, dialect="sqlite")]
        assert blocks
        # As somebody who stops at the first error.
        return run_blocks(["set -e", *blocks], self.root, self.environment, 500)[1:]

    def run(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [f"{self.root}/opt/authz-server/bin/authz-server", *arguments],
            cwd=folder or self.root / "home",
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def machine(dist, tmp_path_factory) -> Machine:
    """A machine on which the files of `make dist` were installed as documented."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    shutil.copytree(dist, machine.root / "dist")
    (printed,) = machine.follow("## Install")
    files = [each for each in (machine.root / "dist").iterdir() if each.is_file()]
    assert printed.count(": OK\n") == len(files) - 1
    return machine


@pytest.mark.timeout(600)
def test_the_installed_server_is_the_wheel_with_its_documents(machine):
    """Case L131"""
    assert machine.run("--version").stdout.split()[-1] == authz_server.__version__
    python = machine.root / "opt/authz-server/bin/python"
    where = "import authz_server, keys, plugins; print(authz_server.__file__)"
    run = subprocess.run(
        [python, "-c", where],
        cwd="/",
        env=machine.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.startswith(f"{machine.root}/opt/authz-server/lib/"), run.stderr
    documents = machine.root / "opt/authz-server/share/doc/authz-server"
    for document in (DOCUMENT, UNIT, "config.example.toml", "requirements/backends.txt"):
        assert (documents / document).read_bytes() == (ROOT / document).read_bytes()
    # A message names a document where it is.
    assert f"copy {documents}/config.example.toml" in machine.run("client", "list").stderr
    assert machine.run("docs").stdout.strip() == str(documents)
    assert machine.run("config", "example").stdout == (documents / "config.example.toml").read_text(
        encoding="utf-8"
    )


@pytest.mark.timeout(600)
def test_a_changed_file_of_the_build_is_noticed(machine, tmp_path):
    """Case L131"""
    dist = tmp_path / "dist"
    subprocess.run(["cp", "-R", machine.root / "dist", dist], check=True)
    (requirements,) = dist.glob("*-requirements.txt")
    requirements.write_text(requirements.read_text() + "\n")
    run = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"],
        cwd=dist,
        env=machine.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert f"{requirements.name}: FAILED" in run.stdout


@pytest.mark.timeout(600)
def test_the_service_is_set_up_and_started_as_documented(machine):
    """Case L131"""
    (printed,) = machine.follow("### As a service")
    assert "made    signing keys of the ring es256" in printed
    state = machine.root / "var/lib/authz-server"
    assert state.stat().st_mode & 0o777 == 0o700
    logged = machine.log.read_text().splitlines()
    assert logged[0].startswith("useradd --system ")
    assert logged[1:] == ["systemctl daemon-reload", "systemctl enable --now authz-server"]
    installed = machine.root / "etc/systemd/system/authz-server.service"
    assert installed.read_bytes() == (ROOT / UNIT).read_bytes()
    serve_without_noise(machine, state, unit_command(machine, installed))


@pytest.mark.timeout(600)
def test_systemd_accepts_the_unit(machine, tmp_path, not_run):
    if shutil.which("systemd-analyze") is None:
        not_run("the check of the unit by systemd", "systemd")
        return
    unit = tmp_path / "authz-server.service"
    unit.write_text(machine.inside((ROOT / UNIT).read_text()))
    run = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def unit_command(machine: Machine, path: Path) -> list[str]:
    """Return what systemd runs, after a look at where and as whom."""
    unit = ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read(path)
    service = unit["Service"]
    assert service["User"] == service["StateDirectory"] == "authz-server"
    assert service["WorkingDirectory"] == "/var/lib/authz-server"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    # Workers that get SIGTERM as soon as the main process lose connections.
    assert service["KillMode"] == "mixed"
    return shlex.split(machine.inside(service["ExecStart"]))


@pytest.mark.timeout(600)
def test_a_normal_start_on_either_database_logs_nothing_above_info(
    machine, empty_database_url, tmp_path
):
    """Case L131"""
    url = empty_database_url.replace("postgresql+psycopg", "postgresql")
    init = machine.run(
        *("init", str(tmp_path), "--issuer", "https://auth.example.org"),
        *("--database-url", url, "--trusted-proxy", "127.0.0.1", "--import", "g2p-connect"),
    )
    assert (init.returncode, init.stderr) == (0, "")
    serve_without_noise(
        machine, tmp_path, [f"{machine.root}/opt/authz-server/bin/authz-server", "serve"]
    )


def serve_without_noise(machine: Machine, folder: Path, command: list[str]) -> None:
    """Serve in a folder that `init` made; every line has to be a record of level info or below."""
    with served(machine, folder, command) as log:
        time.sleep(WATCHED_SECONDS)
    lines = log.read_text().splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]
    assert [line for line in lines if not line.startswith("{")] == []
    assert [record for record in records if record.get("level") in LOUD] == []
    assert any(record.get("message") == "ready" for record in records)
    assert any(record.get("event") == "server.started" for record in records)


@contextmanager
def served(machine: Machine, folder: Path, command: list[str]) -> Iterator[Path]:
    """Run the server on free ports; yield its output file while it serves, then end it."""
    settings, log = folder / "authz-server.toml", folder / "output"
    ports = [reserve_port(), reserve_port()]
    text = settings.read_text()
    text = text.replace("port = 8080", f"port = {ports[0]}")
    settings.write_text(text.replace("health_port = 8081", f"health_port = {ports[1]}"))
    with log.open("wb") as output:
        process = start_tied(
            command, output=output, environment=machine.environment, directory=folder
        )
        try:
            await_ready(f"http://127.0.0.1:{ports[1]}/health/ready", log)
            assert httpx.get(f"http://127.0.0.1:{ports[0]}/.well-known/jwks.json").is_success
            yield log
        finally:
            status = end_process(process)
            for port in ports:
                release_port(port)
    assert status == 0, log.read_text()


def await_ready(url: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if httpx.get(url, timeout=2).is_success:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
