"""The bundled plugin that adds claims from a table."""

from importlib.metadata import EntryPoint

import pytest

from authz_server.hookspecs import TokenDecision
from authz_server.plugin_manager import ENTRY_POINT_GROUP, PluginError, PluginManager

REQUEST = TokenDecision(
    client_id="payer",
    grant_type="client_credentials",
    scopes=("mapper/link", "mapper/resolve"),
    audience=("https://mapper.example",),
    lifetime_seconds=900,
    subject="payer",
    claims={"sender_id": "spp.example.org"},
)
AVAILABLE = [EntryPoint("claims_mapper", "plugins.claims_mapper:ClaimsMapper", ENTRY_POINT_GROUP)]
SHOWN = {
    "active": True,
    "scope": "mapper/link",
    "client_id": "payer",
    "sub": "payer",
    "aud": "https://mapper.example",
    "sender_id": "spp.example.org",
}


def load(**settings):
    return PluginManager(["claims_mapper"], {"claims_mapper": settings}, AVAILABLE)


def test_claims_repeat_facts_of_the_token():
    sources = ("scopes", "client_id", "subject", "audience", "grant_type", "sender_id")
    plugins = load(claims={f"x_{source}": source for source in sources})
    expected = {
        "x_scopes": ["mapper/link", "mapper/resolve"],
        "x_client_id": "payer",
        "x_subject": "payer",
        "x_audience": ["https://mapper.example"],
        "x_grant_type": "client_credentials",
        "x_sender_id": "spp.example.org",
    }
    assert plugins.token_claims(REQUEST) == expected
    # The grant type of a reference token is not known at introspection.
    shown = expected | {"x_scopes": ["mapper/link"]}
    del shown["x_grant_type"]
    assert plugins.introspection_claims(SHOWN) == shown
    of_jwt = plugins.introspection_claims(SHOWN | {"x_grant_type": "client_credentials"})
    assert of_jwt == expected | {"x_scopes": ["mapper/link"]}


def test_a_claim_whose_source_is_absent_is_left_out():
    plugins = load(claims={"g2p_sender": "sender_id"})
    assert plugins.token_claims(TokenDecision("x", "g", ("s",), ("a",), 60)) == {}
    assert plugins.introspection_claims({"scope": "s"}) == {}


def test_constants_are_those_of_the_client():
    plugins = load(clients={"payer": {"branch": "north", "level": 2}})
    assert plugins.token_claims(REQUEST) == {"branch": "north", "level": 2}
    assert plugins.introspection_claims(SHOWN) == {"branch": "north", "level": 2}
    assert plugins.introspection_claims(SHOWN | {"client_id": "other"}) == {}


def test_it_does_what_scope_array_does():
    plugins = load(claims={"scopes": "scopes"})
    assert plugins.token_claims(REQUEST) == {"scopes": ["mapper/link", "mapper/resolve"]}
    assert plugins.introspection_claims({"scope": "a b"}) == {"scopes": ["a", "b"]}


@pytest.mark.parametrize(
    "settings",
    [
        {"claim": "x"},
        {"claims": []},
        {"claims": {"aud": "client_id"}},
        {"claims": {"sender_id": "sender_id"}},
        {"claims": {"x": "password"}},
        {"claims": {" ": "client_id"}},
        {"clients": {"payer": "north"}},
        {"clients": {"payer": {"scope": "x"}}},
        {"claims": {"branch": "client_id"}, "clients": {"payer": {"branch": "north"}}},
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_stop_the_start(settings):
    with pytest.raises(PluginError, match="plugin claims_mapper: it cannot start"):
        load(**settings)
