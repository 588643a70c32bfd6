"""Standard streams that are closed, or that know few characters."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from authz_server.settings import load_settings
from support.live_server import LiveServer, call_cli_json
from support.parties import Parties, make_demo
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings

COMMAND = (sys.executable, "-m", "authz_server", "client", "create", "--scope", "mapper/link")


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "2>&-", "<&- >&-"])
def test_a_server_runs_without_standard_streams(closed, sqlite_url, tmp_path):
    """Its database gets none of their numbers, and so no line of the log."""

    def write(**overrides):
        return write_settings(tmp_path, sqlite_url, overrides)

    parties = Parties(load_settings(write()), SecretsWatch())
    with parties.together():
        parties.create_first_keys()
        client = make_demo(parties).post
    prefix = ("sh", "-c", f'exec "$@" {closed}', "sh")
    with LiveServer(write, tmp_path, prefix=prefix) as server:
        form = {"grant_type": "client_credentials", "scope": "mapper/link", **client.form()}
        answer = httpx.post(f"{server.base_url}/oauth2/token", data=form)
        assert answer.status_code == 200, answer.text
        # A worker's standard input is a pipe from the main process.
        for process_id in (server.process_id, *server.worker_process_ids()):
            for number in (0, 1, 2) if process_id == server.process_id else (1, 2):
                target = str(Path(f"/proc/{process_id}/fd/{number}").readlink())
                assert target in {os.devnull, str(server.log_path)}


@pytest.mark.parametrize("encoding", ["ascii", "ascii:surrogateescape", "latin-1"])
def test_a_secret_is_printed_whatever_characters_stdout_knows(encoding, sqlite_url, tmp_path):
    """The client is registered before it is printed, and its secret is shown once."""
    path = write_settings(tmp_path, sqlite_url, {})
    Parties(load_settings(path), SecretsWatch()).import_scopes()
    run = subprocess.run(
        [*COMMAND, "--name", "ಸಚಿವಾಲಯ", "--config", str(path)],
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (client,) = call_cli_json("client", "list", config=path)
    assert client["id"].encode() in run.stdout
