"""Plugins: loaded by name, called by each hook's failure rule."""

import logging
from importlib.metadata import EntryPoint

import pytest

from authz_server.audit.events import ServerStarted
from authz_server.errors import OAuthError
from authz_server.hookspecs import RESERVED_CLAIMS, RefusalError, TokenDecision, hookimpl
from authz_server.plugin_manager import (
    ENTRY_POINT_GROUP,
    PluginError,
    PluginManager,
    ProvidedPart,
    require_distinct,
)
from support.loaded_plugins import Available, plugin_with, plugins

REQUEST = TokenDecision(
    client_id="mapper-client",
    grant_type="client_credentials",
    scopes=("mapper/link",),
    audience=("https://mapper.example",),
    lifetime_seconds=900,
)
EVENT = ServerStarted(version="1", issuer="https://auth.example", process_id=7)


class Greedy:
    def __init__(self, value):
        self.value = value


class Quiet:
    @hookimpl
    def start(self):
        pass


def test_without_plugins_every_call_is_harmless():
    none = PluginManager([], {})
    none.decide_token(REQUEST)
    none.emit(EVENT)
    assert none.token_claims(REQUEST) == none.introspection_claims({}) == {}
    assert none.names == ()


def test_what_is_installed_but_not_enabled_is_not_imported():
    broken = Available("broken", ImportError("must not be loaded"))
    enabled = PluginManager(["quiet"], {}, [broken, Available("quiet", Quiet)])
    assert enabled.names == ("quiet",)


def test_a_plugin_that_is_not_installed_stops_the_start():
    with pytest.raises(PluginError, match=r"plugin other: .*not installed. Installed: quiet"):
        PluginManager(["other"], {}, [Available("quiet", Quiet)])


def test_a_name_that_two_packages_provide_stops_the_start():
    first = EntryPoint("same", "one:Plugin", ENTRY_POINT_GROUP)
    second = EntryPoint("same", "two:Plugin", ENTRY_POINT_GROUP)
    with pytest.raises(PluginError, match="plugin same: two"):
        PluginManager(["same"], {}, [first, second])


@pytest.mark.parametrize(
    ("loads", "problem"),
    [
        (ImportError("no module named x"), "no module named x"),
        (plugin_with("decide_tokens", lambda: None), "unknown hook 'decide_tokens'"),
        (plugin_with("decide_token", lambda client: client), "client"),
        (type("Empty", (), {}), "implements no hook"),
        (Greedy, "value"),
    ],
)
def test_a_plugin_that_cannot_be_used_stops_the_start_and_is_named(loads, problem):
    with pytest.raises(PluginError, match="plugin bad") as caught:
        plugins(good=Quiet, bad=loads)
    assert problem in str(caught.value)


def test_hook_start_is_given_the_plugin_s_own_settings():
    given = {}

    def start(name):
        return lambda settings: given.update({name: settings})

    plugins(
        {"one": {"key": 1}},
        one=plugin_with("start", start("one")),
        two=plugin_with("start", start("two")),
    )
    assert given == {"one": {"key": 1}, "two": {}}


def test_hook_start_that_fails_stops_the_start_and_names_the_plugin():
    def start(settings):
        raise KeyError(settings["key"])

    with pytest.raises(PluginError, match=r"plugin bad: it cannot start: .*key"):
        plugins(good=Quiet, bad=plugin_with("start", start))


def test_hook_decide_token_lets_a_plugin_refuse(caplog):
    asked = []

    def refuse(request):
        asked.append(request)
        raise RefusalError("outside office hours")

    loaded = plugins(
        first=plugin_with("decide_token", lambda: asked.append("first")),
        second=plugin_with("decide_token", refuse),
        third=plugin_with("decide_token", lambda: asked.append("third")),
    )
    with pytest.raises(OAuthError) as caught:
        loaded.decide_token(REQUEST)

    assert asked == ["first", REQUEST]
    error = caught.value
    assert (error.reason, error.status_code, error.client_id) == (
        "refused_by_policy",
        403,
        "mapper-client",
    )
    # The record and the log have the plugin's words, the answer has not.
    assert error.detail == "plugin second: outside office hours"
    assert "office" not in error.description
    (line,) = caplog.messages
    assert line == "plugin second refused a token of client mapper-client: outside office hours"


def test_hook_decide_token_fails_closed(caplog):
    def fail():
        raise ZeroDivisionError("a fault, not a refusal")

    with pytest.raises(OAuthError) as caught:
        plugins(bad=plugin_with("decide_token", fail)).decide_token(REQUEST)
    assert (caught.value.reason, caught.value.status_code) == ("server_error", 503)
    assert caught.value.detail == "plugin bad failed in decide_token"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.client_id == "mapper-client"
    assert caplog.messages == ["plugin bad failed in decide_token"]
    assert "a fault, not a refusal" in caplog.text


@pytest.mark.parametrize("hook", ["token_claims", "introspection_claims"])
def test_fault_of_a_hook_reaches_the_log(hook, caplog):
    def fail():
        raise ZeroDivisionError("a fault in the plugin")

    with pytest.raises(OAuthError):
        getattr(plugins(bad=plugin_with(hook, fail)), hook)(REQUEST)
    assert caplog.messages == [f"plugin bad failed in {hook}"]
    assert "ZeroDivisionError: a fault in the plugin" in caplog.text


def test_hook_token_claims_of_all_plugins_are_joined():
    loaded = plugins(
        one=plugin_with("token_claims", lambda request: {"scopes": list(request.scopes)}),
        two=plugin_with("token_claims", lambda: {"tenant": "north", "level": 2}),
        three=plugin_with("token_claims", lambda: None),
    )
    expected = {"scopes": ["mapper/link"], "tenant": "north", "level": 2}
    assert loaded.token_claims(REQUEST) == expected


def test_hook_introspection_claims_see_what_the_caller_is_shown():
    loaded = plugins(
        one=plugin_with("introspection_claims", lambda claims: {"scopes": claims["scope"].split()})
    )
    assert loaded.introspection_claims({"scope": "a b"}) == {"scopes": ["a", "b"]}


@pytest.mark.parametrize("hook", ["token_claims", "introspection_claims"])
@pytest.mark.parametrize(
    "returned",
    [
        *({name: "x"} for name in sorted(RESERVED_CLAIMS)),
        ["scopes"],
        {"": 1},
        {1: 1},
        {"taken": 2},
        {"moment": 1j},
        {"text": "\ud800"},
    ],
    ids=ascii,
)
def test_claims_that_are_reserved_taken_or_no_json_fail_closed(hook, returned):
    loaded = plugins(
        one=plugin_with(hook, lambda: {"taken": 1}),
        bad=plugin_with(hook, lambda: returned),
    )
    with pytest.raises(OAuthError) as caught:
        getattr(loaded, hook)(REQUEST if hook == "token_claims" else {})
    assert caught.value.reason == "server_error"
    assert caught.value.detail == f"plugin bad failed in {hook}"


def test_hook_event_happened_reaches_the_others_when_one_fails(caplog):
    told = []

    def note(event):
        told.append(event)

    def fail(event):
        raise RuntimeError(event.name)

    loaded = plugins(
        first=plugin_with("event_happened", note),
        bad=plugin_with("event_happened", fail),
        last=plugin_with("event_happened", note),
    )
    with caplog.at_level(logging.ERROR):
        loaded.emit(EVENT)

    assert told == [EVENT, EVENT]
    (record,) = caplog.records
    assert (record.plugin, record.hook, record.event) == ("bad", "event_happened", "server.started")
    assert record.exc_info[0] is RuntimeError


def test_two_servers_in_one_process_share_no_plugin():
    class Counting:
        def __init__(self):
            self.told = 0

        @hookimpl
        def token_claims(self):
            self.told += 1
            return {"told": self.told}

    one, two = plugins(counting=Counting), plugins(counting=Counting)
    assert one.token_claims(REQUEST) == two.token_claims(REQUEST) == {"told": 1}


def part(value):
    """Accept a number, as the hook of a kind of part accepts its own."""
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is not a number")
    return value


REGISTER = [
    "register_grants",
    "register_client_authentication_methods",
    "register_key_backends",
    "register_introspection_sources",
    "register_commands",
]


@pytest.mark.parametrize("hook", REGISTER)
def test_parts_come_in_the_order_of_the_plugins_with_who_offers_them(hook):
    loaded = plugins(
        one=plugin_with(hook, lambda: [1, 2]),
        two=plugin_with(hook, lambda: None),
        three=plugin_with(hook, lambda: (3,)),
    )
    offered = [("plugin one", 1), ("plugin one", 2), ("plugin three", 3)]
    assert loaded.registered(hook, part) == offered


@pytest.mark.parametrize("hook", REGISTER)
@pytest.mark.parametrize("returned", [["one"], 1, ZeroDivisionError])
def test_what_is_not_a_part_stops_the_start_and_names_the_plugin(hook, returned):
    def register():
        if returned is ZeroDivisionError:
            raise returned("a fault")
        return returned

    with pytest.raises(PluginError, match=f"plugin bad: {hook} failed: "):
        plugins(good=Quiet, bad=plugin_with(hook, register)).registered(hook, part)


def test_parts_of_one_name_are_refused_by_it_and_by_who_offers_them():
    parts = [ProvidedPart("authz-server", "a", 1), ProvidedPart("plugin one", "b", 2)]
    assert require_distinct("grant type", parts) == {"a": 1, "b": 2}
    with pytest.raises(PluginError, match="grant type 'b': provided by both plugin one and"):
        require_distinct("grant type", [*parts, ProvidedPart("plugin two", "b", 3)])
