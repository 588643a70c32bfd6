"""An audit destination that is a pipe: its collector is its only reader."""

import os

import pytest

from support.settings_file import write_settings_beside


@pytest.fixture
def piped(cli, tmp_path):
    """The command line with a pipe for the records, and the collector's end of it."""
    cli.must("keys", "init")
    os.mkfifo(tmp_path / "records", 0o600)
    audit = {"audit": {"destination": str(tmp_path / "records")}}
    cli.config = write_settings_beside(tmp_path, "piped", cli.database_url, audit)
    collector = os.open(tmp_path / "records", os.O_RDONLY | os.O_NONBLOCK)
    yield cli, collector
    os.close(collector)


@pytest.mark.timeout(60)
def test_no_command_reads_the_records_in_the_collectors_place(piped):
    """It would wait for ever, or take records that the collector then lacks."""
    cli, collector = piped
    cli.must("scope", "add", "mapper/link")
    for command in (
        ("config", "check"),
        ("db", "check"),
        ("audit", "search"),
        ("audit", "who", "--scope", "mapper/link", "--at", "2030-01-31T14:05:00Z"),
        ("keys", "revoke", "es256", "--reason", "leaked", "--dry-run"),
    ):
        cli.must(*command)
    assert b'"event":"scope.changed"' in os.read(collector, 65_536)
