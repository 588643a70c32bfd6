"""``registration-token``: initial access tokens of dynamic registration."""

import stat
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, select

from authz_server.clients.registration.models import InitialAccessToken

CREATE = ("registration-token", "create")


def rows(cli) -> list[InitialAccessToken]:
    engine = create_engine(cli.database_url)
    with engine.connect() as connection:
        found = connection.execute(select(InitialAccessToken.__table__)).all()
    engine.dispose()
    return found


def test_a_token_is_shown_once_and_stored_as_a_digest(stocked):
    """Case H88."""
    created = stocked.json(
        *CREATE,
        *("--scope", "mapper.link", "--scope", "registry/*", "--uses", "5", "--expires", "+7d"),
        *("--organisation", "Ministry", "--description", "ERP"),
    )
    assert len(created["token"]) == 43
    assert created["scopes"][0] == "mapper/link"
    assert all(scope.startswith("registry/") for scope in created["scopes"][1:])
    ends = datetime.fromisoformat(created["ends_at"])
    assert timedelta(days=6) < ends - datetime.now(UTC) < timedelta(days=8)
    (row,) = rows(stocked)
    assert created["token"] not in str(row)
    for output in (
        stocked.must("registration-token", "list"),
        stocked.must("registration-token", "list", "--json"),
    ):
        assert created["id"] in output
        assert created["token"] not in output
    (listed,) = stocked.json("registration-token", "list")
    assert (listed["works"], listed["uses_left"], listed["grant_types"]) == (
        True,
        5,
        ["client_credentials"],
    )
    assert stocked.audit_records()[-1][1:] == ("registration.token_created", created["id"])


def test_a_token_may_be_written_to_a_file(stocked, tmp_path):
    """Case H98."""
    path = tmp_path / "token"
    printed = stocked.must(*CREATE, "--token-output", path)
    token = path.read_text().strip()
    assert len(token) == 43
    assert token not in printed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "exists" in stocked.refused(*CREATE, "--token-output", path)
    assert len(rows(stocked)) == 1


def test_a_token_is_ended_once(stocked):
    created = stocked.json(*CREATE)
    assert created["id"] in stocked.must("registration-token", "end", created["id"])
    first = stocked.json("registration-token", "list")
    stocked.must("registration-token", "end", created["id"])
    assert stocked.json("registration-token", "list") == first
    assert not first[0]["works"]
    actions = [action for _, action, _ in stocked.audit_records()]
    assert actions.count("registration.token_ended") == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--scope", "no/such"), "no/such"),
        (("--scope", "no/*"), "no/*"),
        (("--grant-type", "password"), "password"),
        (("--uses", "0"), "uses"),
        (("--uses", "10001"), "uses"),
        (("--expires", "2020-01-01"), "future"),
        (("--organisation", "x" * 201), "organisation"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused(shared_cli, options, named):
    """Case H98."""
    assert named in shared_cli.refused(*CREATE, *options)
    assert rows(shared_cli) == []


def test_an_unknown_token_is_named(stocked):
    """Case H98."""
    refused = stocked.refused("registration-token", "end", "none")
    assert "registration-token list" in refused
