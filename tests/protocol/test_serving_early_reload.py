"""SIGHUP while `serve` starts, as from `systemctl reload` right after a start."""

import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import click
import pytest

from authz_server.cli.root import main
from authz_server.serving.early_reload import FLAGS, is_serve
from authz_server.settings import load_settings
from support.live_server import LiveServer
from support.parties import Parties
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings

#: Runs the program without its root command; prints who handles SIGHUP, and what is imported.
BEFORE_THE_LIBRARIES = """
import signal, sys

sys.modules["authz_server.cli.root"] = None
try:
    import authz_server.cli
except ImportError:
    print(callable(signal.getsignal(signal.SIGHUP)), {"click", "sqlalchemy"} & set(sys.modules))
"""


class ImpatientServer(LiveServer):
    """A server that gets SIGHUP every 50 ms, from the moment that it handles it until it is ready.

    While the interpreter itself starts, nothing can handle a signal.
    """

    sent = 0

    def _await_ready(self) -> None:
        ready = threading.Event()
        sender = threading.Thread(target=self._send, args=(ready,))
        sender.start()
        try:
            super()._await_ready()
        finally:
            ready.set()
            sender.join()

    def _send(self, ready: threading.Event) -> None:
        while not ready.is_set() and not has_hangup(self.process_id, "SigCgt"):
            time.sleep(0.001)
        while not ready.wait(0.05):
            self.send_signal(signal.SIGHUP)
            self.sent += 1


def has_hangup(process_id: int, mask: str) -> bool:
    """Return whether SIGHUP is in this mask of a process."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    masks = dict(line.split(":", 1) for line in lines)
    return bool(int(masks[mask], 16) & 1 << signal.SIGHUP - 1)


def ignores_hangup(process_id: int) -> bool:
    """Return whether a process runs and ignores SIGHUP."""
    with suppress(OSError):
        return has_hangup(process_id, "SigIgn")
    return False


def test_sighup_during_the_start_is_a_reload_after_it(sqlite_url, tmp_path):
    """It ended the server, in the first second."""
    write = partial(write_settings, tmp_path, sqlite_url)
    Parties(load_settings(write({})), SecretsWatch()).create_first_keys()
    with ImpatientServer(lambda **overrides: write(overrides), tmp_path, unforked=True) as server:
        assert server.sent > 5
        server.await_log("the new settings are in force")
        server.change_settings(server={"workers": 2})
        deadline = time.monotonic() + 30
        # A worker ignores SIGHUP a moment after it is forked; one that leaves has no status.
        while [*map(ignores_hangup, server.worker_process_ids())] != [True] * 2 or (
            not server.is_ready()
        ):
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.05)
        assert not has_hangup(server.process_id, "SigIgn")
        assert server.stop() == 0


@pytest.mark.parametrize(("command", "keeps"), [("serve", True), ("client", False)])
def test_a_server_keeps_sighup_before_its_libraries_are_imported(command, keeps):
    """Another command ends with its terminal."""
    run = [sys.executable, "-c", BEFORE_THE_LIBRARIES, "--config", "serve", command]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout == f"{keeps} set()\n"


def test_the_command_is_found_among_the_options():
    """Without the library that parses the command line."""
    flags = {
        name
        for each in (*main.params, main.get_help_option(click.Context(main)))
        if isinstance(each, click.Option) and each.is_flag
        for name in each.opts
    }
    assert flags | {"--"} == FLAGS
    for options in ([], ["--debug"], ["--config", "a"], ["--config=a", "--actor", "serve"], ["--"]):
        assert is_serve([*options, "serve", "--debug"])
        assert not is_serve([*options, "client", "show", "serve"])
        assert not is_serve(options)
