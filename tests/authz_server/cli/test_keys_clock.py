"""Commands on a machine whose clock is off the database's."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session

from authz_server.assembly.operator import operator_services
from authz_server.key_rings.models import KeyRing, SigningKeyRow
from authz_server.settings import load_settings
from keys.lifecycle.rules import find_active_key

HOUR = 3_600
RINGS = {"es256": {"algorithm": "ES256"}, "further": {"algorithm": "ES256"}}


@pytest.fixture
def cli(make_cli, postgresql_url, tmp_path):
    return make_cli(tmp_path, postgresql_url, keys={"rings": RINGS})


@pytest.fixture
def keyed(cli, prepare, database_clock):
    """The ring es256 has its first keys; then the machine's clock is an hour ahead."""
    prepare(cli, ("keys", "init", "es256"), ("keys", "tick"))
    database_clock.set_ahead(-HOUR)
    return cli


def versions(cli, state):
    return [key["kid"] for key in cli.json("keys", "list") if key["state"] == state]


def epochs(cli):
    engine = create_engine(cli.database_url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT name, epoch FROM key_ring")).all()
    engine.dispose()
    return dict(rows)


ORDERS = {
    "tick": lambda _: ("keys", "tick"),
    "rotate": lambda _: ("keys", "rotate"),
    "activate": lambda cli: (
        *("keys", "activate", versions(cli, "published")[0], "--emergency", "--reason", "x"),
    ),
    "prune": lambda _: ("keys", "prune"),
    "destroy": lambda _: ("keys", "destroy", "es256", "--reason", "x"),
    "move": lambda _: ("keys", "move", "es256", "--to", "further", "--reason", "x"),
    "init": lambda _: ("keys", "init", "further"),
}


def alarms(folder):
    records = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    return [record["alarm"] for record in records if record["event"] == "key.alarm"]


@pytest.mark.parametrize("order", ORDERS)
def test_a_command_that_moves_a_ring_is_refused_and_that_is_recorded(keyed, order, tmp_path):
    before = epochs(keyed)
    result = keyed.run(*ORDERS[order](keyed))
    assert result.exit_code == 1
    assert "this machine's clock is 3600.0 s ahead of the database's" in result.stderr
    assert {name: epochs(keyed)[name] for name in before} == before
    assert alarms(tmp_path) == ["clock.off"]


def test_a_dry_run_is_refused_and_not_recorded(keyed, tmp_path):
    result = keyed.run("keys", "rotate", "--dry-run")
    assert result.exit_code == 1
    assert "this machine's clock is 3600.0 s ahead of the database's" in result.stderr
    assert alarms(tmp_path) == []


@pytest.mark.parametrize(
    "stop", [("revoke",), ("revoke", "--all-versions"), ("taint",)], ids=lambda stop: stop[-1]
)
def test_an_emergency_is_carried_out_by_the_databases_time(keyed, database_clock, stop):
    name, *options = stop
    kid = versions(keyed, "active")[0]
    result = keyed.run("keys", name, kid, *options, "--reason", "x", "--json")
    assert result.exit_code == 0, result.output
    assert "ALARM clock.off" in result.stderr
    database_clock.set_ahead(0)
    (key,) = (key for key in keyed.json("keys", "list") if key["kid"] == kid)
    assert key["state"] in {"revoked", "tainted"}
    assert key["stopped_at"] < key["published_at"], "an hour ago, by the true time"


def test_status_says_so(keyed):
    shown = keyed.run("keys", "status", "--json")
    document = json.loads(shown.stdout)
    assert document["store_clock_offset_seconds"] == pytest.approx(-HOUR, abs=1)
    for ring in document["rings"]:
        if ring["ring"] == "es256":
            assert [alarm["event"] for alarm in ring["alarms"]] == ["clock.off"]
            assert ring["active"] is None, "by the database, its time has not come"
    assert "ALARM clock.off" in keyed.must("keys", "status", "es256")


@pytest.fixture
def leapt(make_cli, prepare, database_url, tmp_path):
    """A ring with its first keys, on either database; then its time gains two hours at once."""
    cli = make_cli(tmp_path, database_url, keys={"rings": RINGS})
    prepare(cli, ("keys", "init", "es256"), ("keys", "tick"))
    engine = create_engine(cli.database_url)
    with engine.begin() as connection:
        # What is known of the past is moved back, which is as good as a leap ahead.
        for table, column in (
            ("clock_reading", "at_microseconds"),
            ("clock_reading", "reached_microseconds"),
            ("clock_mark", "microseconds"),
        ):
            back = f"UPDATE {table} SET {column} = {column} - 7200000000"  # noqa: S608 - fixed names
            assert connection.execute(text(back)).rowcount == 1
    engine.dispose()
    return cli


@pytest.mark.parametrize("order", ["tick", "rotate", "init"])
def test_a_clock_that_leapt_moves_no_ring_by_a_command(leapt, order, tmp_path):
    before = epochs(leapt)
    result = leapt.run(*ORDERS[order](leapt))
    assert result.exit_code == 1
    assert "the clock has leapt" in result.stderr
    assert {name: epochs(leapt)[name] for name in before} == before
    assert alarms(tmp_path) == ["clock.leapt"]


def test_an_emergency_is_carried_out_by_a_clock_that_leapt(leapt):
    leapt.must("keys", "revoke", versions(leapt, "active")[0], "--reason", "x")


@pytest.mark.parametrize("stop", ["revoke", "taint"])
def test_the_successor_signs_when_the_clock_is_set_back(leapt, stop, tmp_path):
    """Case Q223: it takes over when the time has certainly come, not in two hours."""
    engine = create_engine(leapt.database_url)
    with Session(engine) as session, session.begin():
        for ring in session.scalars(select(KeyRing)):
            ring.changed_at -= timedelta(hours=3)
        for key in session.scalars(select(SigningKeyRow)):
            key.published_at -= timedelta(hours=3)
            key.activate_at -= timedelta(hours=3)
    engine.dispose()
    leapt.must("keys", stop, versions(leapt, "active")[0], "--reason", "x")
    assert alarms(tmp_path) == ["clock.leapt"]
    with operator_services(load_settings(leapt.config)) as services:
        (ring,) = services.key_store.load_rings(services.clock())
    right = datetime.now(UTC) - timedelta(hours=2)
    signer = find_active_key(ring.keys, right)
    assert signer is not None
    # The time that has certainly passed may be that at which the installation was made.
    assert signer.activate_at > right - timedelta(hours=1)
    assert ring.changed_at <= right
