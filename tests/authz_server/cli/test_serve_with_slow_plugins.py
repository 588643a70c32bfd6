"""`serve` with a plugin that starts slowly in the main process: its health listener waits."""

import signal
import time
from pathlib import Path

import pytest

from authz_server.settings import load_settings
from support.databases import copied_database
from support.live_server import LiveServer, answers
from support.parties import Parties
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings
from support.source_tree import ROOT

#: In a process with workers, which is the main process, it waits for a file of the test.
PLUGIN = """
import os, time
from pathlib import Path
from authz_server.plugin_api import hookimpl

class Slow:
    @hookimpl
    def start(self, settings):
        waiting, released = Path(settings["waiting"]), Path(settings["released"])
        if not Path(f"/proc/self/task/{os.getpid()}/children").read_text():
            return
        with waiting.open("a") as file:
            file.write("waits\\n")
        while not released.exists():
            time.sleep(0.02)
"""
ENTRY = "[authz_server.plugins]\nslow = slow:Slow\n"


class Server(LiveServer):
    """A server that is waited for at its public listener alone.

    Its health listener waits for the plugin while ``released`` does not exist.
    """

    @property
    def released(self) -> Path:
        return self.log_path.with_name("released")

    def await_waits(self, count: int) -> None:
        """Return when the plugin has begun to wait so many times."""
        waiting = self.log_path.with_name("waiting")
        until(lambda: waiting.exists() and len(waiting.read_text().split()) >= count)

    def _await_ready(self) -> None:
        until(lambda: answers(f"{self.base_url}/.well-known/jwks.json"))


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def server(request, tmp_path):
    with copied_database(request, "sqlite", tmp_path) as url:
        yield from running(tmp_path, url)


def running(tmp_path, url):
    installed = tmp_path / "installed"
    information = installed / "slow-1.0.dist-info"
    information.mkdir(parents=True)
    (installed / "slow.py").write_text(PLUGIN)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY)
    files = {name: str(tmp_path / name) for name in ("waiting", "released")}

    def write(**overrides):
        if "server" in overrides:
            overrides["plugins"] = {"enabled": ["slow"], "settings": {"slow": files}}
        return write_settings(tmp_path, url, overrides)

    parties = Parties(load_settings(write()), SecretsWatch())
    parties.create_first_keys()
    prefix = ("env", f"PYTHONPATH={installed}:{ROOT}")
    with Server(write, tmp_path, prefix=prefix) as server:
        yield server


def test_sigterm_ends_it_while_the_health_listener_waits_for_a_plugin(server):
    server.await_waits(1)
    assert not server.is_ready()
    _require_quick_end(server)


def test_the_health_listener_answers_once_the_plugin_has_started(server):
    server.await_waits(1)
    assert not server.is_ready()
    server.released.touch()
    until(server.is_ready)


def test_sigterm_ends_it_while_changed_settings_wait_for_a_plugin(server):
    test_the_health_listener_answers_once_the_plugin_has_started(server)
    server.released.unlink()
    server.send_signal(signal.SIGHUP)
    server.await_waits(2)
    _require_quick_end(server)


def _require_quick_end(server):
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 10
