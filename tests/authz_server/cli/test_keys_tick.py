import json
import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text

from authz_server.cli.keys.tick import ending_signals
from authz_server.cli.root import main
from support.settings_file import write_settings


def test_a_tick_plans_when_the_standby_signs(cli):
    cli.must("keys", "init")
    planned = cli.json("keys", "tick", "--dry-run")
    assert [each["event"] for each in planned[0]["changes"]] == ["key.scheduled"]
    assert planned[0]["written"] is False
    assert cli.json("keys", "tick", "es256")[0]["written"] is True
    assert cli.json("keys", "tick")[0]["written"] is False
    assert "nothing to do" in cli.must("keys", "tick")
    assert cli.must("keys", "tick", "--quiet") == ""


def test_a_ring_that_contradicts_its_backend_is_told(cli):
    cli.must("keys", "init")
    engine = create_engine(cli.database_url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM key_event"))
        connection.execute(text("UPDATE signing_key SET kid = 'another' WHERE version = 2"))
    engine.dispose()
    result = cli.run("keys", "tick", "--json")
    (ticked,) = json.loads(result.stdout)
    assert "key.not_adopted" in {alarm["event"] for alarm in ticked["alarms"]}
    assert "ALARM key.not_adopted" in result.stderr


def test_a_pause_that_is_not_a_number_is_refused(cli):
    """Case R242."""
    assert "it is not a number" in cli.refused("keys", "tick", "--watch", "nan")


def test_an_unknown_ring_fails(cli):
    result = cli.run("keys", "tick", "other")
    assert (result.exit_code, "no ring 'other'" in result.stderr) == (1, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_watching_ends_by_signal(sqlite_url, tmp_path, number):
    config = write_settings(tmp_path, sqlite_url, {})
    assert CliRunner().invoke(main, ["--config", str(config), "keys", "init"]).exit_code == 0
    command = [sys.executable, "-m", "authz_server", "--config", str(config), "keys"]
    environment = {key: value for key, value in os.environ.items() if key != "VAULT_TOKEN"}
    # A shell starts what runs in its background, such as the tests, with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*command, "tick", "--watch", "0.1"], stdout=subprocess.PIPE, text=True, env=environment
    )
    signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdout.readline() == "es256: done.\n"
        while "nothing to do" not in process.stdout.readline():
            pass
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(10) == 0
        assert time.monotonic() - began < 5


def test_a_signal_at_any_moment_ends_a_pause():
    """A handler that took a lock would wait for ever where its own thread held it."""
    sending = "import os, time\nfor _ in range(5_000): os.kill(os.getppid(), 2), time.sleep(2e-4)"
    with ending_signals() as signals, subprocess.Popen([sys.executable, "-c", sending]) as sender:
        came = 0
        while sender.poll() is None:
            came += signals.wait(1e-6)
    assert (sender.returncode, came > 1_000) == (0, True)
