"""docs/metrics.md, the alarms for Prometheus and the code speak of the same metrics."""

import ast
import json
import re

import promql_parser
import pytest
import yaml

from authz_server.metrics.definitions import ALARMS, FAMILIES
from support.source_tree import PACKAGES, ROOT

ROW = re.compile(r"\| `(\w+)` \| (\w+) \| (.*?) \| (.*) \|")
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()
ALERTS = ROOT / "deploy" / "alerts.yaml"
GROUPS = yaml.safe_load(ALERTS.read_text())["groups"]
RULES = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
RECORDED = {rule["record"]: rule for group in GROUPS for rule in group["rules"] if "record" in rule}
#: What a scraper adds to every sample.
SCRAPED_LABELS = {"instance", "job"}
#: The labels of each metric: of the server, of the scraper, and of the rules that record one.
LABELS = (
    {family.name: {*family.labels, *SCRAPED_LABELS} for family in FAMILIES}
    | {"up": SCRAPED_LABELS}
    | {name: {"job", "endpoint"} for name in RECORDED}
)
for family in FAMILIES:
    if family.kind == "histogram":
        LABELS[f"{family.name}_bucket"] = {*LABELS[family.name], "le"}
        LABELS[f"{family.name}_count"] = LABELS[family.name]
WANTED = {
    "not ready": "NotReady",
    "no standby": "SigningKeyWithoutStandby",
    "active key older than its interval and a day": "SigningKeyTooOld",
    "view older than 10 minutes": "KeyViewOld",
    "any mismatch": "SignatureMismatch",
    "any unknown key": "UnknownKeyPresented",
    "node behind": "NodeBehind",
    "token with little left": "VaultTokenExpiring",
    "exportable key": "KeyPrivilegeTooWide",
    "floor moved by others": "KeyFloorChangedExternally",
}


def test_the_document_lists_each_metric_as_it_is_and_no_other():
    documented = [match.groups() for match in ROW.finditer(DOCUMENT)]
    assert documented == [
        (
            family.name,
            family.kind,
            ", ".join(f"`{label}`" for label in family.labels) or "-",
            family.sentence,
        )
        for family in FAMILIES
    ]


def test_the_document_lists_each_alarm_and_no_other():
    section = DOCUMENT.partition("\n## Alarms\n")[2]
    assert tuple(re.findall(r"^\| `([\w.]+)` \| [A-Z].*\. \|$", section, re.MULTILINE)) == ALARMS


def selectors(expression):
    """Yield each selector of a parsed expression."""
    match expression:
        case promql_parser.VectorSelector():
            yield expression
        case promql_parser.MatrixSelector():
            yield expression.vector_selector
        case promql_parser.AggregateExpr() | promql_parser.ParenExpr():
            yield from selectors(expression.expr)
        case promql_parser.BinaryExpr():
            yield from selectors(expression.lhs)
            yield from selectors(expression.rhs)
        case promql_parser.Call():
            for argument in expression.args:
                yield from selectors(argument)
        case promql_parser.NumberLiteral():
            return
        case _:
            raise AssertionError(expression)


def used_by(query):
    """Return the selectors of a query, whose metrics and labels exist."""
    used = list(selectors(promql_parser.parse(query)))
    assert used
    for selector in used:
        assert selector.name in LABELS, selector.name
        assert {each.name for each in selector.matchers.matchers} <= LABELS[selector.name]
    return used


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_metric_is_made_of_metrics_that_exist(name):
    used_by(RECORDED[name]["expr"])
    assert "sum by (job, endpoint)" in RECORDED[name]["expr"]


def test_the_queries_of_the_document_use_metrics_that_exist():
    queries = re.findall(r"```promql\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len(queries) == 2
    for query in queries:
        used_by(query)
    assert set(re.findall(r"job_endpoint:\w+:\w+", DOCUMENT)) <= set(RECORDED)


def test_the_objectives_of_the_document_are_those_of_the_alerts():
    objective = r"^\| (?:availability|latency) \| [\d.]+ % \| ([\d.]+) \|"
    alerts = r"^\| `(\w+)`, `(\w+)` \| ([\d.]+): .* \| (.*) \| (\w+) \|$"
    budgets = re.findall(objective, DOCUMENT, re.MULTILINE)
    rows = re.findall(alerts, DOCUMENT, re.MULTILINE)
    written = {
        (name, budget, rate, severity, tuple(re.findall(r"\d+ [hm]", windows)))
        for *names, rate, windows, severity in rows
        for name, budget in zip(names, budgets, strict=True)
    }
    found = set()
    for name, rule in RULES.items():
        if "BudgetBurns" in name:
            parts = re.findall(r"ratio_rate(\d+)([hm]) > ([\d.]+) \* ([\d.]+)", rule["expr"])
            windows = tuple(f"{number} {unit}" for number, unit, *_ in parts)
            ((rate, budget),) = {tuple(each[2:]) for each in parts}
            found.add((name, budget, rate, rule["labels"]["severity"], windows))
    assert written == found
    assert len(found) == 4


@pytest.mark.parametrize("name", RULES)
def test_a_rule_uses_metrics_and_labels_that_exist(name):
    rule = RULES[name]
    used = used_by(rule["expr"])
    shared = set.intersection(*(LABELS[selector.name] for selector in used))
    for joined in re.findall(r"on \(([^)]*)\)", rule["expr"]):
        assert set(joined.split(", ")) <= shared
    first = LABELS[used[0].name]
    told = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", told)) <= first
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}


def test_the_dashboard_shows_metrics_and_labels_that_exist():
    board = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) >= 10
    for panel in board["panels"]:
        for target in panel["targets"]:
            used = used_by(target["expr"])
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert shown <= set().union(*(LABELS[each.name] for each in used))


@pytest.mark.parametrize("alarm", WANTED.values(), ids=WANTED)
def test_nothing_worth_an_alarm_is_left_out(alarm):
    assert alarm in RULES


def test_alarms_in_rules_are_those_that_the_server_raises():
    named = {
        alarm
        for rule in RULES.values()
        for selector in re.findall(r'alarm[!=~]+"([^"]*)"', rule["expr"])
        for alarm in selector.split("|")
    }
    assert named
    assert named <= set(ALARMS)


def test_every_alarm_of_the_code_is_listed():
    raised = set()
    # No scraper reads the counters of a command.
    commands = [ROOT / "authz_server" / each for each in ("cli", "operations")]
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if not any(path.is_relative_to(each) for each in commands):
                raised |= set(_alarms(ast.parse(path.read_text())))
    assert raised == set(ALARMS)
    assert list(ALARMS) == sorted(ALARMS)


def _alarms(tree):
    """Yield what `Alarm(...)` is given first, and what names in ALARM hold."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id="Alarm"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Constant(value=str(name))):
                if target.endswith("ALARM"):
                    yield name
