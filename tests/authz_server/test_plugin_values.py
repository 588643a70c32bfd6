"""What a plugin may be, and what it may change of what it receives."""

from types import SimpleNamespace

import pytest

from authz_server.hookspecs import Hooks
from authz_server.plugin_manager import PluginError, PluginManager
from authz_server.tokens.decisions import decision_of
from support.loaded_plugins import Available, plugin_with

HOOKS = [name for name in vars(Hooks) if name[0] != "_"]
#: A generator is a list of what it yields.
WITHOUT_LISTS = [name for name in HOOKS if not name.startswith("register_")]


def load(hook, function):
    return PluginManager(["bad"], {}, [Available("bad", plugin_with(hook, function))])


async def _coroutine():
    return None


async def _asynchronous_generator():
    yield None


def _generator():
    yield None


@pytest.mark.parametrize("function", [_coroutine, _asynchronous_generator])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_would_make_a_coroutine_stops_the_start(hook, function):
    with pytest.raises(PluginError, match=f"plugin bad: {hook} must be a plain function"):
        load(hook, function)


@pytest.mark.parametrize("hook", WITHOUT_LISTS)
def test_a_hook_that_would_make_a_generator_stops_the_start(hook):
    with pytest.raises(PluginError, match=f"plugin bad: {hook} must be a plain function"):
        load(hook, _generator)


def test_a_generator_may_register_parts():
    def register():
        yield "part"

    found = load("register_commands", register).registered("register_commands", str.upper)
    assert found == [("plugin bad", "PART")]


def test_a_plugin_changes_neither_the_settings_nor_the_claims_that_it_receives():
    def start(settings):
        settings.pop("key")["inner"] = "changed"

    settings = {"bad": {"key": {"inner": "value"}}}
    available = [Available("bad", plugin_with("start", start))]
    for _ in range(2):
        PluginManager(["bad"], settings, available)
    assert settings == {"bad": {"key": {"inner": "value"}}}

    def change(claims):
        claims["cnf"].clear()
        claims["sub"] = "another"
        return {}

    claims = {"sub": "client", "cnf": {"jkt": "thumbprint"}}
    assert load("introspection_claims", change).introspection_claims(claims) == {}
    assert claims == {"sub": "client", "cnf": {"jkt": "thumbprint"}}


def test_a_plugin_changes_no_authorization_on_which_it_decides():
    authorization = SimpleNamespace(
        client_id="client",
        grant_type="client_credentials",
        scopes=("mapper/link",),
        audience=("https://mapper.example",),
        lifetime_seconds=900,
        confirmation={"jkt": "thumbprint"},
        subject="",
        claims={"act": {"sub": "actor"}},
    )

    def change(request):
        request.confirmation.clear()
        request.claims["act"]["sub"] = "another"

    load("decide_token", change).decide_token(decision_of(authorization))
    assert authorization.confirmation == {"jkt": "thumbprint"}
    assert authorization.claims == {"act": {"sub": "actor"}}
