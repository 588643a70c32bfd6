"""Lifetimes of tokens, and settings that are refused."""

from pathlib import Path

import pytest

from authz_server.clients.models import Client
from authz_server.database.change_feed import record_change
from authz_server.errors import InvalidChangeError
from authz_server.settings import SettingsError, load_settings
from support.claims import claims_of
from support.parties import ACTOR
from support.protocol import METHODS, TOKEN_ENDPOINTS, Protocol

TOML_LIFETIMES = ("0", "-1", "9223372036854775808", "3601", "1e400", "nan", "inf", "900.0")
TOML_LIFETIMES += ('"3600abc"', '"900"', "true", "[900]", "1e2")
RECORD_LIFETIMES = (0, -1, 2**63, 3_601, float("inf"), float("nan"), 900.0, "3600abc", "900", True)


def lifetime(protocol: Protocol, endpoint: str, caller, **fields) -> int:
    """Return how long a new token lives; what the answer says has to agree with what it holds."""
    answer = protocol.ask(endpoint, caller, **fields)
    claims = claims_of(answer.json["access_token"])
    assert claims["exp"] - claims["iat"] == int(answer.json["expires_in"])
    assert claims["iat"] == int(protocol.clock().timestamp())
    return claims["exp"] - claims["iat"]


@pytest.mark.parametrize("value", TOML_LIFETIMES)
@pytest.mark.parametrize("key", ["default_lifetime_seconds", "maximum_lifetime_seconds"])
def test_impossible_lifetimes_in_the_settings(settings_path, key: str, value: str):
    """Case B27."""
    path: Path = settings_path()
    path.write_text(f"{path.read_text()}\n[tokens]\n{key} = {value}\n")
    with pytest.raises(SettingsError, match=rf"tokens\.{key}|tokens\.default_lifetime"):
        load_settings(path)


@pytest.mark.parametrize("value", RECORD_LIFETIMES)
def test_impossible_lifetimes_of_a_client(protocol: Protocol, value: object):
    """Case B27."""
    with (
        pytest.raises(InvalidChangeError, match="token_lifetime_seconds"),
        protocol.parties.change() as (services, session),
    ):
        services.clients.update_client(
            session, protocol.demo.post.id, actor=ACTOR, token_lifetime_seconds=value
        )
    assert lifetime(protocol, "token", protocol.demo.post) == 900


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_default_and_own_lifetime(protocol: Protocol, endpoint: str, method: str):
    """Case B27."""
    assert lifetime(protocol, endpoint, protocol.demo.clients[method]) == 900
    for seconds in (1, 60, 3_600):
        client = protocol.new_client(method, token_lifetime_seconds=seconds)
        assert lifetime(protocol, endpoint, client) == seconds


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_lifetime_cap_of_a_scope(protocol: Protocol, endpoint: str):
    """Case B27."""
    name = f"mapper/brief-{endpoint}"
    with protocol.parties.change() as (services, session):
        services.scopes.add_scope(
            session,
            actor=ACTOR,
            name=name,
            description="For a short while.",
            resource_server_id="mapper",
            risk="money",
            lifetime_cap_seconds=30,
            aliases=(),
            callback_partner=None,
        )
    client = protocol.new_client(allowed_scopes=[name, "mapper/link"], token_lifetime_seconds=3_600)
    assert lifetime(protocol, endpoint, client, scope=name) == 30
    assert lifetime(protocol, endpoint, client, scope=f"mapper/link {name}") == 30
    assert lifetime(protocol, endpoint, client, scope="mapper/link") == 3_600


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_token_ends_when_it_says(protocol: Protocol, endpoint: str):
    """Case B27."""
    client = protocol.new_client(token_lifetime_seconds=20)
    token = protocol.ask(endpoint, client).json["access_token"]
    protocol.clock.advance(19.9)
    assert protocol.is_active(token)
    protocol.clock.advance(0.1)
    assert not protocol.is_active(token)


def test_settings_lowered_later_hold_for_every_client(start_protocol):
    """Case B27."""
    lowered = {"maximum_lifetime_seconds": 60, "default_lifetime_seconds": 30}
    protocol = start_protocol(tokens=lowered)
    client = protocol.new_client()
    # As it stands in the database since the settings still permitted it.
    with protocol.parties.change() as (_, session):
        session.get_one(Client, client.id).token_lifetime_seconds = 3_600
        record_change(session, "client", client.id)
    for endpoint in TOKEN_ENDPOINTS:
        assert lifetime(protocol, endpoint, client) == 60
        assert lifetime(protocol, endpoint, protocol.demo.post) == 30
