"""The goals, and whether a result meets them. They hold for one worker process of ours."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bench.client_methods import DPOP, DPOP_ES256, ES256, HS256, PS256
from bench.contenders import OURS

_SQLITE, _POSTGRESQL = f"{OURS} on SQLite", f"{OURS} on PostgreSQL"


class Goal(NamedTuple):
    """One number of ours, in every table of a kind, that has a bound.

    Attributes:
        part: where it is measured.
        kind: of the table.
        name: the line of the table.
        value: in the medians or the ratios.
        bound: what it is compared with.
        sentence: with ``bound`` in it.
        at_least: whether the bound is the lowest value rather than the highest.
        group: which of the part's groups it concerns; None: all.
    """

    part: str
    kind: str
    name: str
    value: str
    bound: float
    sentence: str
    at_least: bool = False
    group: int | None = None


_CPU, _NODE = "processor_microseconds", "node_oidc_provider"
GOALS = (
    Goal("token", "closed", _SQLITE, _CPU, 100, "a token costs at most {} µs", group=0),
    Goal(
        "token",
        "closed",
        _SQLITE,
        _NODE,
        0.65,
        "a token costs at most {} times node-oidc-provider's",
        group=0,
    ),
    Goal(
        "token",
        "closed",
        _SQLITE,
        "requests_per_second",
        10_000,
        "one worker issues at least {:,} tokens a second",
        at_least=True,
        group=0,
    ),
    Goal("introspection", "closed", _SQLITE, _CPU, 115, "on SQLite at most {} µs"),
    Goal("introspection", "closed", _POSTGRESQL, _CPU, 160, "on PostgreSQL at most {} µs"),
    *(
        Goal(
            "clients",
            "clients",
            f"{name}, {method}",
            _CPU,
            bound,
            f"{name}, {method}: at most {{}} µs",
        )
        for name in (_SQLITE, _POSTGRESQL)
        for method, bound in ((ES256, 190), (DPOP, 230))
    ),
    *(
        Goal(
            "clients",
            "clients",
            f"{name}, {method}",
            _NODE,
            1,
            f"{name}, {method}: at most {{}} times node-oidc-provider's",
        )
        for name in (_SQLITE, _POSTGRESQL)
        for method in (ES256, PS256, HS256, DPOP, DPOP_ES256)
    ),
    *(
        Goal("latency", "latency", name, "p99_to_p50", 10, f"{name}: p99 at most {{}} times p50")
        for name in (_SQLITE, _POSTGRESQL)
    ),
    Goal(
        "overload",
        "overload",
        _SQLITE,
        "share_of_capacity",
        0.8,
        "serves at least {} of its capacity",
        at_least=True,
    ),
    Goal(
        "overload",
        "overload",
        _SQLITE,
        "served_p99_to_usual",
        10,
        "what is served takes at most {} times the usual p99",
    ),
    Goal(
        "overload",
        "overload",
        _SQLITE,
        "refused_p99_microseconds",
        100_000,
        "refuses within {:,} µs",
    ),
    Goal("overload", "overload", _SQLITE, "recovery_seconds", 10, "is normal again within {} s"),
    Goal(
        "verifier",
        "verifier",
        "authz-verifier",
        "added_microseconds",
        25,
        "a decision costs at most {} µs beside the signature",
    ),
)


def goals_section(part: str, result: Mapping[str, Any]) -> list[str]:
    """Return the judgements of one part as a list in Markdown; empty if it has no goals."""
    lines = [line for goal in GOALS if goal.part == part for line in _judge(goal, result)]
    return ["\n".join(lines)] if lines else []


def _judge(goal: Goal, result: Mapping[str, Any]) -> Iterator[str]:
    sentence = goal.sentence.format(goal.bound)
    for number, group in enumerate(result["groups"]):
        for table in group["tables"] if goal.group in (None, number) else ():
            for row in table["rows"] if table["kind"] == goal.kind else ():
                value = (row["medians"] | row["ratios"]).get(goal.value)
                if row["name"] == goal.name and value is not None:
                    met = value >= goal.bound if goal.at_least else value <= goal.bound
                    verdict = "met" if met else "**missed**"
                    place = ", ".join(filter(None, (group["title"], table["title"])))
                    yield f"- {place}: {sentence}: {verdict}, {value:,}."
