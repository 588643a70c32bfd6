"""Hooks that are refused at the start, and values that a plugin cannot change."""

from types import SimpleNamespace

import pytest

from authz_server.hookspecs import RESERVED_CLAIMS, Hooks, copy_values
from authz_server.plugin_manager import PluginError, PluginManager
from authz_server.tokens.decisions import decision_of
from support.loaded_plugins import Available, plugin_with, plugins
from support.parties import ACTOR
from support.stage import ApplicationFixture

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


def test_a_plugin_changes_no_settings_that_it_receives():
    def start(settings):
        settings.pop("key")["inner"] = "changed"

    settings = {"bad": {"key": {"inner": "value"}}}
    available = [Available("bad", plugin_with("start", start))]
    for _ in range(2):
        PluginManager(["bad"], settings, available)
    assert settings == {"bad": {"key": {"inner": "value"}}}


def test_a_plugin_changes_no_claims_that_the_next_one_receives():
    seen = []

    def change(claims):
        seen.append(copy_values(claims))
        claims["cnf"].clear()
        claims["sub"] = "another"
        return {}

    claims = {"sub": "client", "cnf": {"jkt": "thumbprint"}}
    plugin = plugin_with("introspection_claims", change)
    assert plugins(one=plugin, two=plugin).introspection_claims(claims) == {}
    assert seen == [{"sub": "client", "cnf": {"jkt": "thumbprint"}}] * 2
    assert claims == seen[0]


@pytest.mark.parametrize("hook", ["decide_token", "token_claims"])
def test_a_plugin_changes_no_authorization_and_no_decision_of_the_next_one(hook):
    authorization = SimpleNamespace(
        client_id="client",
        grant_type="client_credentials",
        scopes=("mapper/link",),
        audience=("https://mapper.example",),
        lifetime_seconds=900,
        subject="",
        claims={"act": {"sub": "actor"}},
    )
    confirmation = {"jkt": "thumbprint"}
    seen = []

    def change(request):
        seen.append((dict(request.confirmation), dict(request.claims["act"])))
        request.confirmation.clear()
        request.claims["act"]["sub"] = "another"

    plugin = plugin_with(hook, change)
    getattr(plugins(one=plugin, two=plugin), hook)(decision_of(authorization, confirmation))
    assert seen == [({"jkt": "thumbprint"}, {"sub": "actor"})] * 2
    assert confirmation == {"jkt": "thumbprint"}
    assert authorization.claims == {"act": {"sub": "actor"}}


def test_every_member_that_the_server_writes_is_reserved(tmp_path, database_url):
    stage = ApplicationFixture(
        tmp_path,
        database_url,
        introspection={"client_names": True, "maximum_age_seconds": {"read": 60}},
    )
    with stage.change() as (services, session):
        services.clients.update_client(
            session, "client-basic", actor=ACTOR, name="Ministry", organisation="Government"
        )
    answer = stage.introspect(stage.token())
    stage.close()
    assert (answer["client_name"], answer["organisation"]) == ("Ministry", "Government")
    assert set(answer) - RESERVED_CLAIMS == set()
