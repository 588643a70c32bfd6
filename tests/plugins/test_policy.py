"""The bundled plugin that decides by rules, explains itself, and replays recorded requests."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from authz_server.operations.explain import explain_request
from authz_server.plugin_api import TokenDecision
from authz_server.plugin_manager import PluginError
from plugins.policy.replay import replay
from plugins.policy.rules import read_policy
from support.stage import ApplicationFixture

REQUEST = TokenDecision(
    client_id="payer-1",
    grant_type="client_credentials",
    scopes=("disburse/pay", "mapper/link"),
    audience=("https://disburse.example",),
    lifetime_seconds=900,
    source_address="192.0.2.7",
)
SHORTER = """
[[rules]]
name = "shorter"
effect = "narrow"
lifetime_seconds = 60
"""
#: A Wednesday.
NOON = datetime(2030, 1, 2, 12, 0, tzinfo=UTC)


@pytest.fixture
def policy(tmp_path):
    """A function of rules in TOML that returns a policy."""

    def read(text):
        path = tmp_path / "policy.toml"
        path.write_text(text)
        return read_policy(path)

    return read


def rule(effect="refuse", **conditions):
    lines = ["[[rules]]", 'name = "it"', f"effect = {json.dumps(effect)}"]
    return "\n".join(lines + [f"{key} = {json.dumps(value)}" for key, value in conditions.items()])


@pytest.mark.parametrize(
    ("conditions", "applies"),
    [
        ({}, True),
        ({"clients": ["payer-*"]}, True),
        ({"clients": ["PAYER-1", "other"]}, False),
        ({"scopes": ["disburse/*"]}, True),
        ({"scopes": ["registry/*"]}, False),
        ({"grant_types": ["client_credentials"]}, True),
        ({"grant_types": ["urn:x"]}, False),
        ({"networks": ["192.0.2.0/24"]}, True),
        ({"networks": ["10.0.0.0/8", "2001:db8::/32"]}, False),
        ({"other_networks": ["10.0.0.0/8"]}, True),
        ({"other_networks": ["192.0.2.0/24"]}, False),
        ({"weekdays": ["wed"]}, True),
        ({"weekdays": ["sat", "sun"]}, False),
        ({"hours": "12:00-13:00"}, True),
        ({"hours": "11:00-12:00"}, False),
        ({"hours": "22:00-12:01"}, True),
        ({"hours": "22:00-06:00"}, False),
        ({"clients": ["payer-*"], "scopes": ["registry/*"]}, False),
    ],
    ids=str,
)
def test_a_rule_applies_if_each_condition_does(policy, conditions, applies):
    outcome = policy(rule(**conditions)).decide(REQUEST, NOON)
    assert (outcome.request is None, outcome.rules) == ((applies), ("it",) * applies)


def test_hours_and_days_are_those_of_the_time_zone(policy):
    late = NOON.replace(hour=23)
    rules = policy('time_zone = "Africa/Nairobi"\n' + rule(weekdays=["thu"], hours="02:00-03:00"))
    assert rules.decide(REQUEST, late).request is None


def test_the_first_rule_that_decides_does(policy):
    text = rule("allow", clients=["payer-1"]) + "\n" + rule().replace('"it"', '"all"')
    rules = policy(text)
    assert rules.decide(REQUEST, NOON).request == REQUEST
    other = TokenDecision("other", "g", ("a",), ("b",), 60)
    assert rules.decide(other, NOON).reason == "rule all"
    closed = policy('\ufeffdefault = "refuse"\n' + rule("allow", clients=["payer-1"]))
    assert closed.decide(other, NOON).reason == "no rule allows it"


def test_rules_narrow_one_after_the_other(policy):
    text = rule("narrow", lifetime_seconds=300) + "\n"
    text += rule("narrow", remove_scopes=["disburse/*"]).replace('"it"', '"two"')
    outcome = policy(text).decide(REQUEST, NOON)
    assert (outcome.request.scopes, outcome.request.lifetime_seconds) == (("mapper/link",), 300)
    assert outcome.rules == ("it", "two")
    emptied = policy(rule("narrow", remove_scopes=["*"])).decide(REQUEST, NOON)
    assert (emptied.request, emptied.reason) == (None, "rule it leaves no scope")


@pytest.mark.parametrize(
    "text",
    [
        "rules",
        "rules = " + "[" * 99_999,
        "rules = 3",
        "rule = []",
        'default = "narrow"',
        'time_zone = "Mars/Olympus"',
        "[[rules]]",
        rule("refuse").replace("refuse", "deny"),
        rule(client=["x"]),
        rule(clients="x"),
        rule(networks=["10.0.0.0/33"]),
        rule(hours="9-17"),
        rule(hours="24:00-25:00"),
        rule(weekdays=["monday"]),
        rule(lifetime_seconds=60),
        rule("narrow"),
        rule("narrow", lifetime_seconds=-1),
        rule() + "\n" + rule(),
    ],
    ids=lambda text: text[-40:],
)
def test_rules_that_cannot_be_used_are_refused_with_their_place(policy, text):
    with pytest.raises(ValueError, match=r"policy\.toml: "):
        policy(text)


# -------------------------------------------------------------------------------- in a server


@pytest.fixture
def site(database_url, tmp_path):
    rules = tmp_path / "policy.toml"
    narrowing = {"scopes": ["basic-jwt/*"], "remove_scopes": ["*/write"], "lifetime_seconds": 120}
    rules.write_text(
        rule("narrow", **narrowing)
        + "\n"
        + rule(clients=["client-post"], reason="it pays too much").replace('"it"', '"stopped"')
    )
    settings = {"policy": {"rules": str(rules)}}
    stage = ApplicationFixture(
        tmp_path, database_url, plugins={"enabled": ["policy"], "settings": settings}
    )
    yield stage
    stage.close()


def ask(site, client, scope):
    form = {"grant_type": "client_credentials", "scope": scope}
    return site.post("token", form, site.callers[client])


def test_the_answer_the_record_and_the_explanation_name_what_the_rules_leave(site):
    answer = ask(site, "client-basic", "basic-jwt/read basic-jwt/write").get_json()
    assert (answer["scope"], answer["expires_in"]) == ("basic-jwt/read", 120)
    shown = site.introspect(answer["access_token"])
    assert (shown["scope"], shown["exp"] - shown["iat"]) == ("basic-jwt/read", 120)
    assert site.records()[-1]["scope"] == "basic-jwt/read"
    explained = explain_request(site.services, "client-basic", scope="basic-jwt/read")
    assert (explained.granted, explained.lifetime_seconds) == (True, 120)

    refused = ask(site, "client-post", "post-jwt/read")
    assert (refused.status_code, refused.get_json()["error"]) == (403, "access_denied")
    assert "pays" not in refused.text
    detail = (
        "plugin policy: rule stopped: it pays too much"
        " [grant_type=client_credentials scope=post-jwt/read]"
    )
    record = site.records()[-1]
    assert (record["reason"], record["detail"]) == ("refused_by_policy", detail)
    explained = explain_request(site.services, "client-post", scope="post-jwt/read")
    assert (explained.granted, explained.cause, explained.detail) == (
        False,
        "refused_by_policy",
        detail,
    )
    only = ask(site, "client-basic", "basic-jwt/write")
    assert (only.status_code, only.get_json()["error"]) == (403, "access_denied")


def test_recorded_requests_are_replayed_against_a_changed_policy(site, policy):
    for _ in range(3):
        ask(site, "client-basic", "basic-jwt/read")
    for scope in ("post-jwt/read", "post-jwt/write"):
        ask(site, "client-post", scope)
    ask(site, "client-basic", "unknown/scope")
    changed = policy(
        rule(clients=["client-basic"])
        + "\n"
        + rule("narrow", remove_scopes=["none"]).replace('"it"', '"other"')
    )
    lines = site.audit_path.read_text().splitlines()
    number, found = replay(changed, lines, datetime.now(UTC) - timedelta(days=1))
    assert number == 5
    assert {
        (each.client_id, each.scope, each.was, each.would_be): n for each, n in found.items()
    } == {
        ("client-basic", "basic-jwt/read", "issued", "refused"): 3,
        ("client-post", "post-jwt/read", "refused", "issued"): 1,
        ("client-post", "post-jwt/write", "refused", "issued"): 1,
    }
    unchanged = policy(rule(clients=["client-post"]))
    assert not replay(unchanged, lines, datetime.now(UTC) - timedelta(days=1))[1]
    shorter = policy(rule(clients=["client-post"]) + "\n" + SHORTER)
    _, found = replay(shorter, lines, datetime.now(UTC) - timedelta(days=1))
    assert {(each.was, each.would_be): n for each, n in found.items()} == {
        ("issued", "issued for 60 s"): 3
    }
    assert replay(changed, lines, datetime.now(UTC) + timedelta(days=1)) == (0, {})
    broken = ['{"event": "token.issued"', '{"event": "token.issued"}', "", "x"]
    assert replay(changed, broken, datetime.now(UTC)) == (0, {})


def test_a_policy_that_cannot_be_used_stops_the_start(sqlite_url, tmp_path):
    for settings in ({}, {"rules": "policy.toml"}, {"rules": str(tmp_path / "absent.toml")}):
        with pytest.raises(PluginError, match="plugin policy: it cannot start"):
            ApplicationFixture(
                tmp_path,
                sqlite_url,
                plugins={"enabled": ["policy"], "settings": {"policy": settings}},
            )
