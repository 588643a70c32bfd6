"""A client that others wrote registers itself with a server of two workers."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from authz_server.settings import load_settings
from support.databases import copied_database
from support.live_server import LiveServer
from support.node import run_script
from support.parties import ACTOR, Parties
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings

SCOPE = "mapper/link"
METADATA = {"client_name": "ERP", "scope": SCOPE}


@pytest.fixture(params=["sqlite", "postgresql"])
def live(request, tmp_path):
    """A live server under its own address as issuer, and an initial access token of one use."""
    with copied_database(request, request.param, tmp_path) as database_url:

        def write(server: dict[str, Any]) -> Path:
            tables = {
                "issuer": f"http://127.0.0.1:{server['port']}",
                "server": server | {"workers": 2},
                "registration": {"enabled": True},
            }
            return write_settings(tmp_path, database_url, tables)

        server = LiveServer(write, tmp_path)
        parties = Parties(load_settings(server.settings_path), SecretsWatch())
        parties.create_first_keys()
        parties.make_resource_server("mapper")
        with parties.change() as (services, session):
            _, token = services.initial_tokens.create(
                session,
                actor=ACTOR,
                scopes=[SCOPE, "mapper/resolve"],
                expires_at=datetime.now(UTC) + timedelta(hours=1),
            )
        with server:
            yield server, token


def test_oauth4webapi(live, oauth4webapi):
    """Case H88."""
    server, token = live
    seen = run_script(
        oauth4webapi,
        "registration.mjs",
        {"issuer": server.base_url, "initialAccessToken": token, "metadata": METADATA},
    )
    client = seen["client"]
    assert (client["client_name"], client["scope"]) == ("ERP", SCOPE)
    assert client["token_endpoint_auth_method"] == "client_secret_basic"
    assert client["client_secret_expires_at"] == 0
    assert seen["token"]["scope"] == SCOPE
    # The token permits one registration.
    assert seen["challenge"]["scheme"] == "bearer"
    assert seen["challenge"]["parameters"]["error"] == "invalid_token"


def test_openid_client(live, oauth4webapi):
    """Cases D38, H88."""
    server, token = live
    seen = run_script(
        oauth4webapi,
        "openid_registration.mjs",
        {"issuer": server.base_url, "initialAccessToken": token, "metadata": METADATA},
    )
    registered, described = seen["registered"], seen["described"]
    assert registered["token_endpoint_auth_method"] == "private_key_jwt"
    assert "client_secret" not in registered
    assert seen["token"]["scope"] == SCOPE
    assert (described["active"], described["client_id"]) == (True, registered["client_id"])
