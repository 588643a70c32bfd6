"""Commands that end tokens and secrets, on a machine whose clock is off the database's."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, text

HOUR = 3_600
MINISTRY = ("--name", "Ministry", "--scope", "mapper/link")


@pytest.fixture
def database_url(postgresql_url, database_clock):
    """A database whose clock and the machine's agree as yet."""
    del database_clock
    return postgresql_url


@pytest.fixture(params=[HOUR, -HOUR], ids=["behind", "ahead"])
def ahead(request, registered, database_clock) -> timedelta:
    """How far the database's clock is ahead of the machine's."""
    del registered
    database_clock.set_ahead(request.param)
    return timedelta(seconds=request.param)


def rows(cli, query: str) -> list:
    engine = create_engine(cli.database_url)
    with engine.connect() as connection:
        found = connection.execute(text(query)).all()
    engine.dispose()
    return list(found)


def is_present(moment: datetime, ahead: timedelta) -> bool:
    """Return whether a time is the database's present."""
    return abs(moment - datetime.now(UTC) - ahead) < timedelta(minutes=1)


def cut_offs(cli) -> dict[str, datetime]:
    """Return the instants of the cut-offs, by their subjects."""
    found = rows(cli, "SELECT kind, subject, instant_microseconds FROM revocation_cut_off")
    return {f"{kind}:{subject}": instant(at) for kind, subject, at in found}


def instant(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)


CUTS = {
    "client": (("revoke", "--client", "ministry", "--yes"), "client:ministry"),
    "scope": (("revoke", "--scope", "mapper/link", "--yes"), "scope:mapper/link"),
    "key": (("revoke", "--key", "es256:1", "--yes"), None),
    "all": (("revoke", "--before", "now", "--yes"), "all:"),
    "until": (("revoke", "--client", "ministry", "--before", "now", "--yes"), "client:ministry"),
    "disable": (("client", "disable", "ministry", "--revoke"), "client:ministry"),
    "delete": (("client", "delete", "ministry", "--yes"), "client:ministry"),
    "audience": (
        ("resource-server", "delete", "mapper", "--yes"),
        "audience:https://mapper.example",
    ),
}


@pytest.mark.parametrize("cut", CUTS)
def test_tokens_end_at_the_databases_present(registered, ahead, cut):
    """Otherwise new tokens would be inactive for an hour, or those of the last hour active."""
    command, subject = CUTS[cut]
    registered.must(*command)
    found = cut_offs(registered)
    at = found[subject] if subject else next(iter(found.values()))
    assert is_present(at, ahead), found


def test_a_time_is_of_the_future_by_both_clocks(registered, database_clock):
    database_clock.set_ahead(-HOUR)
    half_an_hour_ago = datetime.now(UTC) - timedelta(minutes=30)
    # It has passed by the machine's clock, which the operator sees: it is meant to be now.
    registered.must(
        "revoke", "--client", "ministry", "--before", half_an_hour_ago.isoformat(), "--yes"
    )
    assert is_present(cut_offs(registered)["client:ministry"], timedelta(hours=-1))
    database_clock.set_ahead(HOUR)
    in_half_an_hour = datetime.now(UTC) + timedelta(minutes=30)
    registered.must(
        "revoke", "--scope", "mapper/link", "--before", in_half_an_hour.isoformat(), "--yes"
    )
    assert cut_offs(registered)["scope:mapper/link"] == in_half_an_hour
    refused = registered.run("revoke", "--before", "+2h", "--yes")
    assert refused.exit_code == 2
    assert "lies in the future" in refused.stderr


def test_a_revoked_token_stays_revoked_for_the_life_of_a_token(registered, ahead):
    registered.must("token", "revoke", "--jti", "some-token")
    (row,) = rows(registered, "SELECT expires_at FROM revoked_token")
    assert row[0] >= datetime.now(UTC) + ahead + timedelta(hours=1)


def test_a_secret_begins_and_ends_by_the_databases_clock(registered, ahead):
    """The time without a use, after which an old secret ends, begins with the new one."""
    registered.must("client", "secret", "rotate", "ministry", "--end-old-when-unused", "1h")
    old, new = sorted(
        registered.json("client", "secret", "list", "ministry"),
        key=lambda each: each["ends_when_unused_seconds"] is None,
    )
    assert is_present(datetime.fromisoformat(new["created_at"]), ahead)
    registered.must("client", "secret", "end", "ministry", old["id"], "--yes")
    listed = {each["id"]: each for each in registered.json("client", "secret", "list", "ministry")}
    ended = listed[old["id"]]
    assert is_present(datetime.fromisoformat(ended["ends_at"]), ahead)
    assert (ended["works"], listed[new["id"]]["works"]) == (False, True)


def test_a_stop_is_set_at_the_databases_present(registered, ahead):
    registered.must("stop", "client", "ministry", "--reason", "x", "--yes")
    (stop,) = registered.json("stop", "list")
    assert is_present(datetime.fromisoformat(stop["created_at"]), ahead), json.dumps(stop)


@pytest.mark.parametrize(("ahead", "expected"), [(-HOUR, -HOUR), (-3, 0), (3, 3), (HOUR, HOUR)])
def test_a_cut_off_reaches_the_tokens_of_this_machine_while_it_issues_some(
    registered, database_clock, ahead, expected
):
    """It issues tokens within the tolerance of 5 s, with the time of its own clock."""
    database_clock.set_ahead(ahead)
    before = datetime.now(UTC)
    registered.must("revoke", "--client", "ministry", "--yes")
    off = cut_offs(registered)["client:ministry"] - before - timedelta(seconds=expected)
    assert timedelta(seconds=-1) < off < datetime.now(UTC) - before + timedelta(seconds=1)


def test_a_span_begins_at_the_databases_present(registered, ahead):
    registered.must("client", "create", "later", *MINISTRY, "--starts", "now", "--expires", "+30d")
    registered.must("client", "secret", "add", "later", "--expires", "+1h")
    client = registered.json("client", "show", "later")
    hour = timedelta(hours=1)
    assert is_present(datetime.fromisoformat(client["starts_at"]), ahead)
    assert is_present(datetime.fromisoformat(client["expires_at"]), ahead + 30 * 24 * hour)
    ends = [each["ends_at"] for each in registered.json("client", "secret", "list", "later")]
    assert is_present(datetime.fromisoformat(max(filter(None, ends))), ahead + hour)


def report_node(cli, offset_seconds: float, age: str = "0 s") -> None:
    """Store the report of a node whose clock is so many seconds behind the database's."""
    engine = create_engine(cli.database_url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO key_node VALUES ('node', 'es256', 1,"
                " clock_timestamp() - CAST(:age AS interval), :offset)"
            ),
            {"offset": offset_seconds, "age": age},
        )
    engine.dispose()


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_off_reaches_the_tokens_of_a_node_that_is_ahead(registered, cut):
    """They carry times of the future, and stayed active for all of their life."""
    report_node(registered, -4.0)
    command, subject = CUTS[cut]
    before = datetime.now(UTC)
    registered.must(*command)
    found = cut_offs(registered)
    at = found[subject] if subject else next(iter(found.values()))
    ahead, took = timedelta(seconds=4), datetime.now(UTC) - before
    assert timedelta(seconds=-0.5) < at - before - ahead < took + timedelta(seconds=0.5)


@pytest.mark.parametrize(
    ("offset", "age"),
    [(4.0, "0 s"), (-6.0, "0 s"), (-4.0, "20 min")],
    ids=["behind", "off", "gone"],
)
def test_no_other_node_makes_new_tokens_inactive(registered, offset, age):
    """One that is behind, that issues none because its clock is off, or that has ended."""
    report_node(registered, offset, age)
    registered.must("revoke", "--client", "ministry", "--yes")
    after = datetime.now(UTC)
    assert cut_offs(registered)["client:ministry"] < after + timedelta(seconds=0.5)


def test_a_client_that_is_created_again_has_no_token_of_the_former_one(registered):
    """A node that is ahead may have issued one before it had read the deletion."""
    report_node(registered, -4.0)
    registered.must("client", "delete", "ministry", "--yes")
    registered.must("client", "create", "ministry", *MINISTRY)
    (latest,) = rows(
        registered,
        "SELECT max(instant_microseconds) FROM revocation_cut_off WHERE subject = 'ministry'",
    )
    (created,) = rows(registered, "SELECT created_at FROM client WHERE id = 'ministry'")
    assert instant(latest[0]) > created[0] + timedelta(seconds=3.5)


def test_a_time_that_has_passed_is_compared_with_the_times_in_the_tokens(registered):
    report_node(registered, -4.0)
    minute_ago = datetime.now(UTC) - timedelta(minutes=1)
    registered.must("revoke", "--client", "ministry", "--before", minute_ago.isoformat(), "--yes")
    assert cut_offs(registered)["client:ministry"] == minute_ago
