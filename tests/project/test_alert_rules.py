"""The alerts for Prometheus fire when they should, and not otherwise, by the real promtool."""

import json
import re

import pytest
import yaml

from support.documents import anchors_of
from support.promtool import run_promtool
from support.source_tree import ROOT

ALERTS = ROOT / "deploy" / "alerts.yaml"
GROUPS = yaml.safe_load(ALERTS.read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
NAMES = [rule["alert"] for rule in RULES if "alert" in rule]
RECORDED = [rule["record"] for rule in RULES if "record" in rule]
FAILED = 'authz_server_requests_total{endpoint="token",outcome="server_error"}'
CASES = yaml.safe_load((ROOT / "tests" / "project" / "alert_cases.yaml").read_text())


def test_promtool_accepts_the_rules():
    assert f"SUCCESS: {len(RULES)} rules found" in run_promtool("check", "rules", ALERTS)


#: For each alert of the verifier, a series that fires it, and one more that ends it or is needed.
VERIFIER = {
    "VerifierKeysOld": {
        "keys_left_seconds": "3000-60x60",
        'fetches_total{document="keys",outcome="failure"}': "0+1x60",
    },
    "VerifierCannotDecide": {'requests_total{outcome="temporarily_unavailable"}': "0+1x60"},
    "VerifierStatusListsFail": {
        'fetches_total{document="status_list",outcome="failure"}': "0+1x60"
    },
    "VerifierPollsFail": {
        'polls_total{outcome="failure"}': "0+1x60",
        'polls_total{outcome="success"}': "5+0x60",
    },
    "VerifierEventsRefused": {'events_total{outcome="refused"}': "0+1x60"},
    "VerifierUnknownKeys": {"unknown_keys_total": "0+100x60"},
    "VerifierClockOff": {"clock_offset_seconds": "-60+0x60"},
}
VERIFIER_SOUND = {
    "keys_left_seconds": "3900+0x60",
    'fetches_total{document="keys",outcome="failure"}': "1+0x60",
    'requests_total{outcome="accepted"}': "0+1x60",
    'polls_total{outcome="failure"}': "0+1x60",
    'polls_total{outcome="success"}': "0+1x60",
    "clock_offset_seconds": "0.4+0x60",
}


def test_the_rules_for_the_verifier_fire_on_their_causes(tmp_path):
    readme = (ROOT / "verifier" / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    names = [rule["alert"] for rule in yaml.safe_load(text)["groups"][0]["rules"]]
    assert names == list(VERIFIER)
    rules = tmp_path / "rules.yaml"
    rules.write_text(text)
    tests = [
        {
            "interval": "1m",
            "input_series": [
                {"series": f"authz_verifier_{name}", "values": values}
                for name, values in series.items()
            ],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertstate="firing",alertname="{alert}"}})',
                    "eval_time": "50m",
                    "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                }
            ],
        }
        for alert in names
        for series, fires in ((VERIFIER[alert], True), (VERIFIER_SOUND, False))
    ]
    path = tmp_path / "tests.yaml"
    document = {"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}
    path.write_text(json.dumps(document))
    run_promtool("test", "rules", path)


def test_each_alert_fires_on_its_cause_and_on_nothing_else(tmp_path):
    """Each is evaluated alone, but for the samples of a server without a fault."""
    assert list(CASES["alerts"]) == NAMES
    sound = [_test({}, minute, NAMES, fire=False) for minute in (70, 365)]
    files = [_write(tmp_path / "all.yaml", ALERTS, *sound)]
    for name, cases in CASES["alerts"].items():
        assert any("fires" in case for case in cases), name
        tests = []
        for case in cases:
            changes = {key: value for key, value in case.items() if key not in {"fires", "quiet"}}
            minute = case.get("fires") or case["quiet"]
            tests.append(_test(changes, minute, [name], fire="fires" in case))
        rules = tmp_path / f"{name}-rules.yaml"
        rules.write_text(json.dumps({"groups": _groups_of(name)}))
        files.append(_write(tmp_path / f"{name}.yaml", rules, *tests))
    run_promtool("test", "rules", *files)


def _groups_of(name):
    """Return the groups with the alert alone, and with the recorded metrics if it reads them."""
    (expression,) = (rule["expr"] for rule in RULES if rule.get("alert") == name)
    needed = {name, *(each for each in RECORDED if each in expression)}
    return [
        group | {"rules": [r for r in group["rules"] if r.get("alert", r.get("record")) in needed]}
        for group in GROUPS
    ]


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_names_the_section_that_helps(name):
    (rule,) = (rule for rule in RULES if rule.get("alert") == name)
    path, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor in anchors_of(ROOT / path)


def test_an_alert_is_described_with_its_labels(tmp_path):
    (rule,) = (rule for rule in RULES if rule.get("alert") == "ErrorBudgetBurnsFast")
    case = _test({FAILED: "0+100x400"}, 70, ["ErrorBudgetBurnsFast"], fire=True)
    annotations = rule["annotations"] | {"summary": "token: 5% of the requests of an hour failed"}
    labels = {"severity": "critical", "endpoint": "token", "job": "authz-server"}
    case["alert_rule_test"] = [
        {
            "eval_time": "70m",
            "alertname": "ErrorBudgetBurnsFast",
            "exp_alerts": [{"exp_labels": labels, "exp_annotations": annotations}],
        }
    ]
    run_promtool("test", "rules", _write(tmp_path / "tests.yaml", ALERTS, case))


@pytest.mark.parametrize("window", ["5m", "30m", "1h", "6h"])
def test_a_recorded_share_is_that_of_the_objectives(window):
    """The queries in docs/metrics.md and in the dashboard are those of the alerts over 30 days."""
    recorded = {rule["record"]: _one_line(rule["expr"]) for rule in RULES if "record" in rule}
    document = (ROOT / "docs" / "metrics.md").read_text()
    board = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    available, quick = map(_one_line, re.findall(r"```promql\n(.*?)```", document, re.DOTALL))
    errors = recorded[f"job_endpoint:authz_server_errors:ratio_rate{window}"]
    slow = recorded[f"job_endpoint:authz_server_slow:ratio_rate{window}"]
    assert available == f"1 - ( {errors} )".replace(f"[{window}]", "[30d]")
    assert f"1 - {quick}" == slow.replace(f"[{window}]", "[30d]")
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert f"1 - ({errors}) / 0.001".replace(f"[{window}]", "[30d]") in shown


def _one_line(expression):
    return re.sub(r"\s+", " ", expression).strip()


def _write(path, rules, *tests):
    """Write a file of tests for a file of rules; return its path."""
    document = {"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}
    # JSON is YAML.
    path.write_text(json.dumps(document))
    return path


def _test(changes, minute, names, *, fire):
    """Return a test of promtool: samples, and whether alerts fire at a minute."""
    series = {name: values for name, values in (CASES["sound"] | changes).items() if values}
    alerts = f'ALERTS{{alertstate="firing",alertname=~"{"|".join(names)}"}}'
    fired = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names if fire]
    return {
        "name": f"{names[0] if len(names) == 1 else 'all'} at {minute}",
        "interval": "1m",
        "input_series": [
            {"series": _labelled(name), "values": values} for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": f"group by (alertname) ({alerts})",
                "eval_time": f"{minute}m",
                "exp_samples": fired,
            }
        ],
    }


def _labelled(name):
    """Return a sample with the labels of a scrape."""
    metric, _, labels = name.partition("{")
    own = [labels.removesuffix("}"), 'instance="node-1"']
    if "job=" not in labels:
        own.append('job="authz-server"')
    return f"{metric}{{{','.join(filter(None, own))}}}"
