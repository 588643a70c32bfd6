"""`serve` with a plugin that starts slowly in the main process: its health listener waits."""

import signal
import time

import pytest

from authz_server.settings import load_settings
from support.databases import copied_database
from support.live_server import LiveServer, answers
from support.parties import Parties
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings
from support.source_tree import ROOT

#: It takes long in the main process, once a worker has started it.
PLUGIN = """
import os, time
from pathlib import Path
from authz_server.plugin_api import hookimpl

class Slow:
    @hookimpl
    def start(self, settings):
        started = Path(settings["started"])
        with started.open("a") as file:
            file.write(f"{os.getpid()}\\n")
        others = {*started.read_text().split()} - {str(os.getpid()), str(os.getppid())}
        time.sleep(20 if others else 0)
"""
ENTRY = "[authz_server.plugins]\nslow = slow:Slow\n"


class Server(LiveServer):
    """A server that is waited for at its public listener alone."""

    def _await_ready(self) -> None:
        deadline = time.monotonic() + 60
        while not answers(f"{self.base_url}/.well-known/jwks.json"):
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)


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
    settings = {"slow": {"started": str(tmp_path / "started")}}

    def write(**overrides):
        plugins = {"enabled": ["slow"], "settings": settings} if "server" in overrides else {}
        overrides = overrides | ({"plugins": plugins} if plugins else {})
        return write_settings(tmp_path, url, overrides)

    parties = Parties(load_settings(write()), SecretsWatch())
    parties.create_first_keys()
    prefix = ("env", f"PYTHONPATH={installed}:{ROOT}")
    with Server(write, tmp_path, prefix=prefix) as server:
        yield server


def test_sigterm_ends_it_while_the_health_listener_waits_for_a_plugin(server):
    assert not server.is_ready(), "the plugin starts"
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 10


def test_the_health_listener_answers_once_the_plugin_has_started(server):
    deadline = time.monotonic() + 60
    while not server.is_ready():
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.1)


def test_sigterm_ends_it_while_changed_settings_wait_for_a_plugin(server):
    test_the_health_listener_answers_once_the_plugin_has_started(server)
    server.send_signal(signal.SIGHUP)
    time.sleep(1)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 10
