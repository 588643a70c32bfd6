"""The bundled plugin that adds the scopes as an array."""

from importlib.metadata import EntryPoint

import pytest

from authz_server.hookspecs import TokenDecision
from authz_server.plugin_manager import ENTRY_POINT_GROUP, PluginError, PluginManager

REQUEST = TokenDecision(
    client_id="mapper-client",
    grant_type="client_credentials",
    scopes=("mapper/link", "mapper/resolve"),
    audience=("https://mapper.example",),
    lifetime_seconds=900,
)
AVAILABLE = [EntryPoint("scope_array", "plugins.scope_array:ScopeArray", ENTRY_POINT_GROUP)]


def load(**settings):
    return PluginManager(["scope_array"], {"scope_array": settings}, AVAILABLE)


def test_tokens_and_answers_carry_the_scopes_as_an_array():
    plugins = load()
    assert plugins.token_claims(REQUEST) == {"scopes": ["mapper/link", "mapper/resolve"]}
    shown = plugins.introspection_claims({"active": True, "scope": "mapper/link"})
    assert shown == {"scopes": ["mapper/link"]}


def test_the_claim_may_have_another_name():
    plugins = load(claim="scp")
    assert plugins.token_claims(REQUEST) == {"scp": ["mapper/link", "mapper/resolve"]}
    assert plugins.introspection_claims({"scope": "a b"}) == {"scp": ["a", "b"]}


@pytest.mark.parametrize(
    "settings", [{"claim": "scope"}, {"claim": "aud"}, {"claim": ""}, {"claim": 3}, {"clam": "scp"}]
)
def test_settings_that_cannot_be_used_stop_the_start(settings):
    """Case L129."""
    with pytest.raises(PluginError, match="plugin scope_array: it cannot start"):
        load(**settings)
