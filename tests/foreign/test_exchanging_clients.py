"""Clients that others wrote, at their defaults: authorization details and token exchange."""

import json
from pathlib import Path
from typing import Any

import pytest
import requests_oauth2client as library
from authlib.integrations.requests_client import OAuth2Session

from authz_server.settings import load_settings
from support.claims import claims_of
from support.live_server import LiveServer
from support.parties import Parties
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings
from support.token_exchange import ACCESS_TOKEN, GRANT_TYPE

TYPE, SCOPE = "g2p_disbursement", "disburse/disburse"
DETAIL = {"type": TYPE, "programme": "cash", "currency_code": "KES", "count": 3}
GRANT = {
    "programmes": ["cash"],
    "currency_code": "KES",
    "payer_fas": ["account:1@bank"],
    "payment_cap": "10.00",
    "batch_cap": "100.00",
    "count": 10,
}


@pytest.fixture(scope="module")
def scene(module_database_url, tmp_path_factory):
    """The address of a live server, and the credentials of a payer and of a gateway."""
    directory = tmp_path_factory.mktemp("exchanging")

    def write(server: dict[str, Any]) -> Path:
        issuer = f"http://127.0.0.1:{server['port']}"
        overrides = {"issuer": issuer, "server": server | {"workers": 2}}
        return write_settings(directory, module_database_url, overrides)

    server = LiveServer(write, directory)
    parties = Parties(load_settings(server.settings_path), SecretsWatch())
    parties.create_first_keys()
    parties.make_resource_server("disburse")
    usual = {"allowed_scopes": [SCOPE], "default_scopes": []}
    payer = parties.make_client(
        "payer",
        "client_secret",
        properties={"authorization_details_grants": {TYPE: [GRANT]}},
        **usual,
    )
    gateway = parties.make_client(
        "gateway",
        "client_secret",
        grant_types=["client_credentials", GRANT_TYPE],
        properties={"token_exchange": {"subjects": ["payer"], "audiences": ["disburse"]}},
        **usual,
    )
    with server:
        yield server.base_url, payer, gateway


def client_of(base_url, credentials) -> library.OAuth2Client:
    return library.OAuth2Client.from_discovery_endpoint(
        f"{base_url}/.well-known/oauth-authorization-server",
        issuer=base_url,
        client_id=credentials.id,
        client_secret=credentials.secret,
        testing=True,
    )


def test_requests_oauth2client(scene):
    base_url, payer, gateway = scene
    payer, gateway = client_of(base_url, payer), client_of(base_url, gateway)
    token = payer.client_credentials(authorization_details=json.dumps([DETAIL]))
    (detail,) = token.authorization_details
    assert (detail["count"], detail["batch_cap"], token.scope) == (3, "100.00", SCOPE)
    own = gateway.client_credentials(scope=SCOPE)
    for actor in (None, own):
        exchanged = gateway.token_exchange(
            subject_token=token, actor_token=actor, audience="disburse"
        )
        assert exchanged.issued_token_type == ACCESS_TOKEN
        claims = claims_of(exchanged.access_token)
        assert (claims["sub"], claims["client_id"]) == ("payer", "gateway")
        assert claims["act"] == {"sub": "gateway"}
        assert claims["authorization_details"] == [detail]
    with pytest.raises(library.InvalidTarget):
        gateway.token_exchange(subject_token=token, audience="mapper")
    payer.revoke_access_token(token)
    with pytest.raises(library.InvalidRequest):
        gateway.token_exchange(subject_token=token)


def test_requests_oauth2client_with_dpop(scene):
    base_url, payer, gateway = scene
    token = client_of(base_url, payer).client_credentials(
        authorization_details=json.dumps([DETAIL]), dpop=True
    )
    client = client_of(base_url, gateway)
    with pytest.raises(library.InvalidRequest):
        client.token_exchange(
            subject_token=token.access_token, subject_token_type=ACCESS_TOKEN, dpop=True
        )
    exchanged = client.token_exchange(
        subject_token=token.access_token,
        subject_token_type=ACCESS_TOKEN,
        dpop=True,
        dpop_key=token.dpop_key,
    )
    assert claims_of(exchanged.access_token)["cnf"] == claims_of(token.access_token)["cnf"]


def test_authlib(scene):
    base_url, payer, gateway = scene
    with OAuth2Session(payer.id, payer.secret) as session:
        token = session.fetch_token(
            f"{base_url}/oauth2/token",
            grant_type="client_credentials",
            authorization_details=json.dumps([DETAIL]),
        )
    assert token["authorization_details"][0]["count"] == 3
    with OAuth2Session(gateway.id, gateway.secret) as session:
        exchanged = session.fetch_token(
            f"{base_url}/oauth2/token",
            grant_type=GRANT_TYPE,
            subject_token=token["access_token"],
            subject_token_type=ACCESS_TOKEN,
        )
    assert exchanged["issued_token_type"] == ACCESS_TOKEN
    assert exchanged["authorization_details"] == token["authorization_details"]
