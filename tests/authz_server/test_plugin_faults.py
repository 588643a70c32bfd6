"""A plugin that raises, hangs, returns rubbish or a megabyte, in each hook."""

import threading
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from authz_server.assembly.base import BaseServices
from authz_server.audit.events import (
    ClientChanged,
    CutOffRecorded,
    KeyChanged,
    ServerStarted,
    StopSet,
    TokenRevoked,
)
from authz_server.database.orm import open_database
from authz_server.errors import OAuthError
from authz_server.hookspecs import (
    MAXIMUM_CLAIM_BYTES,
    AnsweredRequest,
    Hooks,
    Narrowing,
    RefusalError,
    Revocation,
    TokenDecision,
    find_revocation,
)
from authz_server.plugin_api import AuthorizationDetailsType
from authz_server.plugin_manager import PluginError, PluginManager
from authz_server.tokens.authorization_details import DetailRules
from authz_server.tokens.authorization_details_type import ALWAYS
from support.loaded_plugins import Available, plugin_with

REQUEST = TokenDecision(
    client_id="client",
    grant_type="client_credentials",
    scopes=("mapper/link", "mapper/resolve"),
    audience=("https://mapper.example",),
    lifetime_seconds=900,
)
MEGABYTE = "x" * 1_000_000
SECONDS = 0.4
#: How the server calls each hook that is called after the start.
CALLS = {
    "decide_token": lambda manager: manager.decide_token(REQUEST),
    "token_claims": lambda manager: manager.token_claims(REQUEST),
    "introspection_claims": lambda manager: manager.introspection_claims({"scope": "a"}),
    "event_happened": lambda manager: manager.emit(
        ServerStarted(version="1", issuer="https://authz.example", process_id=1)
    ),
    "revocation_happened": lambda manager: manager.report_revocation(Revocation("all", "")),
    "request_answered": lambda manager: manager.follow_request(
        AnsweredRequest("token", "/oauth2/token", 200, "ok", 0.0, 0.1, "id", "client", "192.0.2.1")
    ),
}
NOTIFY = ("event_happened", "revocation_happened", "request_answered")
REGISTER = [hook for hook in vars(Hooks) if hook.startswith("register_")]
FAULTS = {
    "raises": lambda: 1 / 0,
    "raises a megabyte": lambda: _raise(RuntimeError(MEGABYTE)),
    "ends the process": lambda: _raise(SystemExit(1)),
    "hangs": lambda: time.sleep(3 * SECONDS),
    "rubbish": lambda: object(),  # noqa: PLW0108 - a class takes no mark
    "a number": lambda: 7,
    "a megabyte": lambda: {"claim": MEGABYTE},
    "a deep one": lambda: _nested(5_000),
}


#: A method that is called in the request's own thread cannot be given up, or kept from leaving.
NOT_CAUGHT = ("hangs", "ends the process")


def _raise(error):
    raise error


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return {"claim": value}


def load(hook, function, failures=None):
    """Return a manager with a plugin whose one hook is the function."""
    return PluginManager(
        ["bad"],
        {},
        [Available("bad", plugin_with(hook, function))],
        report=failures.append if failures is not None else lambda _: None,
        call_seconds=SECONDS,
    )


def test_every_hook_is_tested_here():
    assert {*CALLS, *REGISTER, "start"} == {name for name in vars(Hooks) if name[0] != "_"}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("hook", [hook for hook in CALLS if hook not in NOTIFY])
def test_a_fault_in_a_hook_that_decides_is_a_503_in_bounded_time(hook, fault, caplog):
    failures = []
    manager = load(hook, FAULTS[fault], failures)
    began = time.monotonic()
    with pytest.raises(OAuthError) as caught:
        CALLS[hook](manager)
    assert time.monotonic() - began < 8 * SECONDS
    assert (caught.value.status_code, caught.value.error) == (503, "server_error")
    assert caught.value.detail == f"plugin bad failed in {hook}"
    assert caplog.messages == [f"plugin bad failed in {hook}"]
    ((plugin, failed, kind),) = failures
    expected = {"hangs": "timed_out"}.get(fault, "raised" if "raises" in fault else None)
    assert (plugin, failed) == ("bad", hook)
    assert kind == (expected or ("raised" if fault == "ends the process" else "invalid"))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("hook", NOTIFY)
def test_a_fault_in_a_hook_that_is_notified_reaches_no_caller(hook, fault):
    failures = []
    began = time.monotonic()
    CALLS[hook](load(hook, FAULTS[fault], failures))
    assert time.monotonic() - began < 8 * SECONDS
    failed = fault == "hangs" or "raises" in fault or "process" in fault
    assert [(each.plugin, each.hook) for each in failures] == [("bad", hook)] * failed


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "hangs"])
@pytest.mark.parametrize("hook", [*REGISTER, "start"])
def test_a_fault_at_start_stops_it_and_is_named_in_few_words(hook, fault):
    def require(part):
        raise TypeError(f"{part} is not a part of this kind")

    if hook == "start" and "raises" not in fault and "process" not in fault:
        assert load(hook, FAULTS[fault]).names == ("bad",)  # what it returns is not read
        return
    with pytest.raises(PluginError, match="plugin bad") as caught:
        load(hook, FAULTS[fault]).registered(hook, require)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("hook", [*REGISTER, "start"])
def test_a_plugin_that_hangs_at_start_stops_it(hook, monkeypatch):
    monkeypatch.setattr("authz_server.plugin_manager.START_SECONDS", SECONDS)
    with pytest.raises(PluginError, match="did not return within"):
        load(hook, FAULTS["hangs"]).registered(hook, lambda part: part)


def test_calls_that_hang_make_further_ones_fail_at_once_until_they_return():
    released, calls = threading.Event(), []

    def hang():
        calls.append(1)
        released.wait(10)

    manager = load("decide_token", hang)
    for _ in range(4):
        with pytest.raises(OAuthError):
            manager.decide_token(REQUEST)
    began = time.monotonic()
    for _ in range(100):
        with pytest.raises(OAuthError):
            manager.decide_token(REQUEST)
    assert time.monotonic() - began < SECONDS
    assert len(calls) == 4
    released.set()
    deadline = time.monotonic() + 60
    while True:
        try:
            manager.decide_token(REQUEST)
        except OAuthError:
            assert time.monotonic() < deadline
        else:
            break
    assert len(calls) == 5


def test_another_plugin_decides_while_one_hangs():
    manager = PluginManager(
        ["hanging", "working"],
        {},
        [
            Available("hanging", plugin_with("event_happened", FAULTS["hangs"])),
            Available("working", plugin_with("token_claims", lambda: {"a": 1})),
        ],
        call_seconds=SECONDS,
    )
    CALLS["event_happened"](manager)
    assert manager.token_claims(REQUEST) == {"a": 1}


class Details(AuthorizationDetailsType):
    """A type with a fault in one of its methods."""

    TYPE = "example"
    SCOPES = ("mapper/link",)

    def __init__(self, fault, method):
        self._fault = fault if method == "find_granted" else dict
        self._window_fault = fault if method == "window" else lambda: ALWAYS

    def check_grant(self, grant):
        """Accept every grant."""

    def find_granted(self, detail, grant):
        del detail, grant
        return self._fault()

    def window(self, granted):
        del granted
        return self._window_fault()


@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in NOT_CAUGHT])
@pytest.mark.parametrize("method", ["find_granted", "window"])
def test_a_fault_in_a_type_of_authorization_details_is_a_503(method, fault, caplog):
    owner = SimpleNamespace(id="mapper")
    client = SimpleNamespace(
        id="client",
        properties=SimpleNamespace(
            authorization_details_types=None, authorization_details_grants={"example": [{}]}
        ),
    )
    rules = DetailRules(
        {"example": Details(FAULTS[fault], method)},
        SimpleNamespace(find_resource_server=lambda _: owner),
        SimpleNamespace(find=lambda _: SimpleNamespace(resource_server_id="mapper")),
        lambda: datetime.now(UTC),
    )
    details = [{"type": "example"}]
    with pytest.raises(OAuthError) as caught:
        rules.grant(client, details, ["https://mapper.example"], 900)
    assert (caught.value.status_code, caught.value.error) == (503, "server_error")
    assert caplog.messages == ["the authorization details type example failed"]
    if method == "find_granted":
        with pytest.raises(OAuthError):
            rules.is_covered(client, details)


@pytest.mark.parametrize("size", [MAXIMUM_CLAIM_BYTES - 12, MAXIMUM_CLAIM_BYTES])
def test_claims_have_a_limit(size):
    manager = load("token_claims", lambda: {"claim": "x" * size})
    if size < MAXIMUM_CLAIM_BYTES - 11:
        assert len(manager.token_claims(REQUEST)["claim"]) == size
    else:
        with pytest.raises(OAuthError):
            manager.token_claims(REQUEST)


def test_hook_decide_token_may_permit_less_and_the_next_plugin_sees_what_is_left():
    seen = []

    def narrow(request):
        seen.append((request.scopes, request.lifetime_seconds))
        return Narrowing(("mapper/resolve",), request.lifetime_seconds // 2)

    manager = PluginManager(
        ["one", "two"],
        {},
        [Available(name, plugin_with("decide_token", narrow)) for name in ("one", "two")],
    )
    decided = manager.decide_token(REQUEST)
    assert (decided.scopes, decided.lifetime_seconds) == (("mapper/resolve",), 225)
    assert seen == [(REQUEST.scopes, 900), (("mapper/resolve",), 450)]


@pytest.mark.parametrize(
    "narrowing",
    [
        Narrowing(()),
        Narrowing(("mapper/other",)),
        Narrowing(["mapper/link"]),
        Narrowing(lifetime_seconds=901),
        Narrowing(lifetime_seconds=0),
        Narrowing(lifetime_seconds=True),
        Narrowing(lifetime_seconds="60"),
        {"scopes": ("mapper/link",)},
    ],
    ids=str,
)
def test_hook_decide_token_that_permits_more_or_nothing_fails_closed(narrowing):
    with pytest.raises(OAuthError) as caught:
        load("decide_token", lambda: narrowing).decide_token(REQUEST)
    assert caught.value.reason == "server_error"


def test_a_refusal_s_reason_is_cut_to_what_a_record_holds():
    with pytest.raises(OAuthError) as caught:
        load("decide_token", lambda: _raise(RefusalError(MEGABYTE))).decide_token(REQUEST)
    assert caught.value.reason == "refused_by_policy"
    assert 900 < len(caught.value.detail) < 1_000


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            TokenRevoked(actor="a", client_id="client", jti="j"),
            Revocation("token", "j", "client"),
        ),
        (
            CutOffRecorded(actor="a", kind="key", subject="k", instant_microseconds=5),
            Revocation("key", "k", instant_microseconds=5),
        ),
        (
            StopSet(actor="a", kind="programme", subject="p", reason="r", clients=1, in_force=None),
            Revocation("programme", "p"),
        ),
        (
            ClientChanged(actor="a", action="client.disabled", client_id="client"),
            Revocation("client", "client"),
        ),
        (
            ClientChanged(actor="a", action="resource_server.deleted", client_id="mapper"),
            Revocation("resource-server", "mapper"),
        ),
        (
            KeyChanged(
                actor="a", action="key.revoked", ring="r", kid="k", reason="", event_hash="h"
            ),
            Revocation("key", "k"),
        ),
        (ClientChanged(actor="a", action="client.updated", client_id="client"), None),
        (ServerStarted(version="1", issuer="https://authz.example", process_id=1), None),
    ],
    ids=lambda each: type(each).__name__,
)
def test_hook_revocation_happened_is_called_for_what_ends_tokens(event, expected):
    assert find_revocation(event) == expected


def test_hook_request_answered_gets_the_request():
    seen = []

    def note(request):
        seen.append(request)

    manager = load("request_answered", note)
    assert manager.follows_requests
    CALLS["request_answered"](manager)
    assert [(each.endpoint, each.status) for each in seen] == [("token", 200)]


def test_hook_revocation_happened_is_called_by_the_process_that_revokes(make_settings):
    settings = make_settings(plugins={"enabled": ["noted"]})
    services = BaseServices(settings, open_database(settings.database))
    seen = []

    def note(revocation):
        seen.append(revocation)

    vars(services)["plugins"] = load("revocation_happened", note)
    services.notify(TokenRevoked(actor="a", client_id="client", jti="j"))
    services.notify(ClientChanged(actor="a", action="client.updated", client_id="client"))
    services.database.close()
    assert seen == [Revocation("token", "j", "client")]
