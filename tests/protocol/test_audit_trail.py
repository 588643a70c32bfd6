"""The chains of a real server: two workers and commands in one file, ended, killed and rotated."""

import json
import os
import signal
import time

import pytest

from support.databases import copied_database
from support.edge import running_edge
from support.live_server import call_cli, call_cli_json


@pytest.fixture(params=["sqlite", "postgresql"])
def edge(request, tmp_path):
    """A server of two workers, on each database."""
    with (
        copied_database(request, request.param, tmp_path) as url,
        running_edge(tmp_path, url, workers=2) as edge,
    ):
        yield edge


def test_the_records_of_workers_and_commands_are_intact_and_signed_at_the_end(edge, tmp_path):
    """A worker that is killed leaves records that are chained; its end is not signed."""
    config, path = edge.server.settings_path, tmp_path / "audit.jsonl"
    # Connections of their own, so that both workers issue some.
    for _ in range(20):
        edge.new_token()
    os.kill(edge.server.worker_process_ids()[0], signal.SIGKILL)
    edge.server.await_log("exited with status -9")
    for command in (("disable", edge.demo.post.id), ("enable", edge.demo.post.id)):
        assert call_cli("client", *command, config=config).returncode == 0
    path.rename(tmp_path / "audit.jsonl.1")
    # Each writer looks once a second whether the file is still there.
    time.sleep(1.1)
    edge.server.stop()
    found = call_cli_json("audit", "verify", config=config)
    assert found["findings"] == []
    assert found["lines"]["writers"] >= 5
    assert found["checkpoints"] >= 2
    assert found["stored"]["unsealed"] == 0
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert lines[-1]["event"] == "audit.checkpoint"
    assert {"audit.continued"} <= {each["event"] for each in lines}
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    cut = call_cli("audit", "verify", config=config)
    assert cut.returncode == 1
    assert "ALARM cut off" in cut.stdout
