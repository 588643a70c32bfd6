"""A restored older copy of the database is noticed by what the audit file knows of later."""

import json
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, delete, select
from sqlalchemy.orm import Session

from authz_server.assembly.operator import operator_services
from authz_server.audit import restored_database
from authz_server.audit.models import AuditRecord
from authz_server.audit.restored_database import RestoredDatabaseError, RestoreReadiness
from authz_server.database.schema import opened_database
from authz_server.operations.scopes import add_scope
from authz_server.settings import load_settings
from support.postgresql_access import database_name
from support.settings_file import write_settings


class Installation:
    """The command line, and a copy of its database that can be put in its place."""

    def __init__(self, cli, tmp_path, postgresql) -> None:
        self.cli, self.folder, self.postgresql = cli, tmp_path, postgresql
        self.file = tmp_path / "audit.jsonl"
        self.copy = ""

    def back_up(self) -> None:
        if self.cli.database_url.startswith("sqlite"):
            path = self.folder / "copy.sqlite"
            original = self.cli.database_url.removeprefix("sqlite:///")
            with closing(sqlite3.connect(original)) as source, closing(sqlite3.connect(path)) as to:
                source.backup(to)
            self.copy = f"sqlite:///{path}"
        else:
            self.copy = self.postgresql.create_database(database_name(self.cli.database_url))

    def restore(self) -> None:
        self.cli.database_url = self.copy
        self.cli.config = write_settings(self.folder, self.copy, {})

    def readiness(self, seconds: list[float]):
        settings = load_settings(self.cli.config)
        return opened_database(settings.database), settings.audit, lambda: seconds[0]

    def write(self, at: datetime, **record) -> None:
        line = {"time": f"{at.isoformat(timespec='milliseconds')[:23]}Z", **record}
        with self.file.open("a") as file:
            file.write(f"{json.dumps(line)}\n")

    def date_records(self, later: timedelta) -> None:
        """Write the file as a machine does whose clock shows a later time."""

        def move(found: re.Match[str]) -> str:
            moved = datetime.fromisoformat(found[2]) + later
            return f"{found[1]}{moved.isoformat(timespec='milliseconds')[:23]}Z"

        text = self.file.read_text()
        self.file.write_text(re.sub(r'("time":")([^"]+)', move, text))


@pytest.fixture
def installation(cli, prepare, tmp_path, postgresql):
    prepare(
        cli,
        ("keys", "init"),
        ("scope", "import", "g2p-connect"),
        *(
            ("client", "create", name, "--name", name, "--scope", "mapper/link")
            for name in ("payer", "other")
        ),
    )
    made = Installation(cli, tmp_path, postgresql)
    yield made
    if made.copy.startswith("postgresql"):
        postgresql.drop_database(made.copy)


CHANGES = {
    "client.disabled": ("client", "disable", "payer"),
    "client.secret_added": ("client", "create", "new", "--name", "N", "--scope", "mapper/link"),
    "cut_off.recorded": ("revoke", "--client", "payer", "--yes"),
    "ring.frozen": ("keys", "freeze", "es256", "--reason", "drill"),
    "scope.added": ("scope", "add", "own/read"),
    "operator.created": ("operator", "create", "ada"),
    "registration.token_created": ("registration-token", "create"),
}


@pytest.mark.parametrize("change", [*CHANGES])
def test_an_older_copy_is_named_with_what_it_lacks(installation, change):
    """Case Q224."""
    cli = installation.cli
    assert cli.json("db", "check")["problems"] == []
    installation.back_up()
    done = cli.run(*CHANGES[change])
    if done.exit_code != 0:
        pytest.fail(done.output)
    installation.restore()
    refusal = cli.refused("db", "check")
    assert "older than the audit file" in refusal
    assert change in refusal
    assert "authz-server revoke --before now" in refusal


def test_the_revocation_of_everything_ends_the_alarm_also_for_other_nodes(installation, tmp_path):
    """Case Q224."""
    cli = installation.cli
    installation.back_up()
    cli.must("client", "disable", "payer")
    # Another node has a file of its own.
    (tmp_path / "node").mkdir()
    kept = installation.file.read_bytes()
    installation.restore()
    cli.refused("db", "check")
    cli.must("client", "disable", "other")  # a later change of another kind ends nothing
    assert "client.disabled of payer" in cli.refused("db", "check")
    cli.must("revoke", "--before", "now", "--yes")
    cli.must("db", "check")
    installation.file.write_bytes(kept)
    cli.must("db", "check")


def test_readiness_notices_it_and_looks_again(installation):
    """Case Q224."""
    cli, seconds = installation.cli, [0.0]
    installation.back_up()
    cli.must("client", "disable", "payer")
    installation.restore()
    opened, audit, monotonic = installation.readiness(seconds)
    with opened as database:
        readiness = RestoreReadiness(database, audit, monotonic)
        for _ in range(2):
            with pytest.raises(RestoredDatabaseError):
                readiness.require()
        cli.must("revoke", "--before", "now", "--yes")
        with pytest.raises(RestoredDatabaseError):
            readiness.require()
        seconds[0] = readiness.BAD_SECONDS
        readiness.require()
        assert "payer" in installation.file.read_text()


def test_later_changes_however_many_hide_nothing(installation):
    """Case Q224: requests and other nodes go on changing what was restored."""
    cli = installation.cli
    installation.back_up()
    cli.must("client", "disable", "payer")
    installation.restore()
    with operator_services(load_settings(cli.config)) as services:
        for number in range(60):
            add_scope(services, actor="operator:tester", name=f"own/later-{number}")
    assert "client.disabled of payer" in cli.refused("db", "check")


def test_tokens_however_many_hide_nothing(installation):
    """Case Q224: they fill a megabyte in seconds."""
    cli, issued = installation.cli, '{"time":"2026-01-01T00:00:00.000Z","event":"token.issued"}\n'
    installation.back_up()
    cli.must("client", "disable", "payer")
    with installation.file.open("a") as file:
        file.writelines(issued for _ in range(50_000))
    installation.restore()
    assert "client.disabled of payer" in cli.refused("db", "check")


@pytest.mark.parametrize("size", [1, 50, 499, 100_000])
def test_every_change_is_read_wherever_a_block_ends(tmp_path, monkeypatch, size):
    """Case Q224."""
    monkeypatch.setattr(restored_database, "_BLOCK_BYTES", size)
    file = tmp_path / "audit.jsonl"
    for ending in ("\n", ""):
        records = (
            f'{{"time":"2026-01-01T00:00:0{n}.000Z","event":"token.revoked","actor":"a","jti":"{n}"}}'
            for n in range(9)
        )
        file.write_text("\n".join(records) + ending)
        found = restored_database._latest_changes(file)  # noqa: SLF001 - as it reads
        assert [change.subject for change in found] == [*"876543210"]


def test_the_same_change_made_again_is_missed(installation):
    """Case Q224: its row is in the copy once."""
    cli = installation.cli
    for act in ("disable", "enable"):
        cli.must("client", act, "payer")
    installation.date_records(timedelta(hours=-1))
    engine = create_engine(cli.database_url)
    with Session(engine) as session, session.begin():
        for record in session.scalars(select(AuditRecord)):
            record.at -= timedelta(hours=1)
    engine.dispose()
    cli.must("db", "check")
    installation.back_up()
    cli.must("client", "disable", "payer")
    installation.restore()
    assert "client.disabled of payer" in cli.refused("db", "check")


def test_a_machine_whose_clock_is_off_lacks_nothing(installation):
    """Case Q224: the rows are dated by the database, the records by the machine."""
    cli = installation.cli
    cli.must("client", "disable", "payer")
    cli.must("revoke", "--client", "other", "--yes")
    cli.must("keys", "freeze", "es256", "--reason", "drill")
    installation.date_records(timedelta(hours=2))
    cli.must("db", "check")
    installation.back_up()
    cli.must("client", "enable", "payer")
    installation.restore()
    assert "client.enabled of payer" in cli.refused("db", "check")


def test_rows_that_an_operator_deleted_are_not_missed(installation):
    """Case Q224: the oldest that is left is where the comparison begins."""
    cli = installation.cli
    cli.must("client", "disable", "payer")
    engine = create_engine(cli.database_url)
    with engine.begin() as connection:
        connection.execute(delete(AuditRecord))
    engine.dispose()
    cli.must("db", "check")
    cli.must("client", "enable", "payer")
    cli.must("db", "check")


def test_purging_hides_no_restored_database_and_invents_none(installation, tmp_path):
    """Case Q224: every row of the copy is older than the settings keep them."""
    cli = installation.cli
    purging = {"audit": {"keep_days": 30}}
    engine = create_engine(cli.database_url)
    with Session(engine) as session, session.begin():
        for record in session.scalars(select(AuditRecord)):
            record.at -= timedelta(days=40)
    engine.dispose()
    installation.file.write_text("")
    installation.back_up()
    cli.must("client", "disable", "payer")
    cli.config = write_settings(tmp_path, cli.database_url, purging)
    assert cli.json("db", "purge")["deleted_rows"] > 1
    cli.must("db", "check")
    installation.restore()
    cli.config = write_settings(tmp_path, installation.copy, purging)
    assert cli.json("db", "purge")["deleted_rows"] > 1
    assert "client.disabled of payer" in cli.refused("db", "check")


def test_a_young_database_beside_an_old_file_is_no_restored_one(installation):
    """Case Q224."""
    long_ago = datetime.now(UTC) - timedelta(days=30)
    lines = installation.file.read_text()
    installation.file.write_text("")
    installation.write(
        long_ago, event="client.changed", actor="a", action="client.disabled", client_id="payer"
    )
    with installation.file.open("a") as file:
        file.write(lines)
    installation.cli.must("db", "check")


def test_a_row_of_another_time_is_a_tokens_own(installation):
    """Case Q224: the clock leapt between the row and the record."""
    cli = installation.cli
    cli.must("token", "revoke", "--jti", "a-token")
    text = installation.file.read_text()
    last = json.loads(text.splitlines()[-1])
    assert last["event"] == "token.revoked"
    later = datetime.now(UTC) + timedelta(hours=2)
    installation.write(later, **{name: last[name] for name in last if name != "time"})
    cli.must("db", "check")
    installation.write(
        later, **{name: last[name] for name in last if name != "time"} | {"jti": "b"}
    )
    assert "token.revoked of b" in cli.refused("db", "check")


def test_lines_that_cannot_be_read_are_passed_over(installation):
    for line in (
        "",
        "nonsense",
        '{"actor":',
        '{"actor":1,"event":"client.changed"}',
        '"actor"',
        "[]",
        '{"actor":' + "[" * 100_000,
    ):
        with installation.file.open("a") as file:
            file.write(f"{line}\n")
        installation.cli.must("db", "check")
    installation.file.unlink()
    installation.cli.must("db", "check")


def test_the_end_of_a_long_file_is_enough(installation):
    """Case Q224."""
    cli = installation.cli
    installation.back_up()
    now = datetime.now(UTC)
    with installation.file.open("a") as file:
        file.writelines(
            f'{{"time":"{now:%Y-%m-%dT%H:%M:%S}.000Z","n":{n}}}\n' for n in range(60_000)
        )
    cli.must("client", "disable", "payer")
    installation.restore()
    assert "client.disabled of payer" in cli.refused("db", "check")


def test_a_stream_cannot_be_compared(installation, tmp_path):
    cli = installation.cli
    installation.back_up()
    cli.must("client", "disable", "payer")
    audit = {"destination": "stderr", "latest_change_file": ""}
    cli.config = write_settings(tmp_path, installation.copy, {"audit": audit})
    cli.must("db", "check")
