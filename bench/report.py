"""Result files: one JSON for each part with its rounds, one Markdown page for all of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.contenders import FLOOR, NODE, Contender
from bench.environment import describe_commit, describe_machine, describe_versions
from bench.measurement import Plan, Round, summarise
from bench.signing_report import signing_section

RESULTS = Path(__file__).with_name("results")
#: A token costs at most so many times the floor (bench/README.md).
GOAL_RATIO = 1.6
_OURS = "authz-server on SQLite, /oauth2/token"
_COLUMNS = (
    ("CPU µs per request", "processor_microseconds"),
    ("database's CPU µs", "database_processor_microseconds"),
    ("times the floor", "ratio_to_floor"),
    ("requests/s", "requests_per_second"),
    ("p50 µs", "p50_microseconds"),
    ("p99 µs", "p99_microseconds"),
)
#: The part of bench/signing.py.
KEYS = "keys"
_TITLES = {
    "token": "A token by client credentials",
    "introspection": "Introspection of an access token",
    KEYS: "Signatures by a Vault",
}


def make_result(
    contenders: Sequence[Contender],
    rounds: Sequence[Sequence[Round]],
    absent: Mapping[str, str],
    plan: Plan,
    load_averages: Sequence[float],
) -> dict[str, Any]:
    """Return what is written of one part, the floor first."""
    described = [
        {
            "name": contender.name,
            "does": contender.does,
            "medians": summarise(own, rounds[0]),
            "rounds": [asdict(one) for one in own],
        }
        for contender, own in zip(contenders, rounds, strict=True)
    ]
    return frame_result(described, absent, plan, load_averages)


def frame_result(
    described: Sequence[Mapping[str, Any]],
    absent: Mapping[str, str],
    plan: Plan,
    load_averages: Sequence[float],
) -> dict[str, Any]:
    """Return what is written of one part: the contenders and the circumstances."""
    return {
        "measured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": describe_commit(),
        "machine": describe_machine() | {"load_averages": list(load_averages)},
        "versions": describe_versions(),
        "plan": asdict(plan),
        "not_measured": dict(absent),
        "contenders": list(described),
    }


def write_result(part: str, result: Mapping[str, Any], directory: Path) -> None:
    """Write one part's file and the page over all files in the directory."""
    directory.mkdir(exist_ok=True)
    text = json.dumps(result, indent=2, ensure_ascii=False)
    (directory / f"{part}.json").write_text(f"{text}\n", encoding="utf-8")
    (directory / "README.md").write_text(_page(directory), encoding="utf-8")


def _page(directory: Path) -> str:
    sections = [_INTRODUCTION]
    for part, title in _TITLES.items():
        path = directory / f"{part}.json"
        if path.is_file():
            result = json.loads(path.read_text(encoding="utf-8"))
            sections.append(f"## {title}\n\n{_section(part, result)}")
    return "\n\n".join(sections) + "\n"


def _section(part: str, result: Mapping[str, Any]) -> str:
    if part == KEYS:
        return f"{signing_section(result)}\n\n{_circumstances(result)}"
    paragraphs = [_table(result["contenders"])]
    paragraphs += [f"Not measured: {name}: {why}." for name, why in result["not_measured"].items()]
    if part == "token":
        paragraphs.append(_goal({each["name"]: each for each in result["contenders"]}))
    return "\n\n".join([*paragraphs, _circumstances(result)])


def _table(contenders: Iterable[Mapping[str, Any]]) -> str:
    titles = ["", "what it does", *(title for title, _ in _COLUMNS)]
    lines = [titles, ["---", "---", *("---:" for _ in _COLUMNS)]]
    for each in contenders:
        cells = [_cell(name, each["medians"].get(name)) for _, name in _COLUMNS]
        lines.append([each["name"], each["does"], *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if name == "ratio_to_floor" else f"{value:,.0f}"


def _goal(contenders: Mapping[str, Any]) -> str:
    own, floor = contenders[_OURS]["medians"], contenders[FLOOR]["medians"]
    ratio, spent = own["ratio_to_floor"], own["processor_microseconds"]
    base = floor["processor_microseconds"]
    lines = [
        _judged(
            f"a token costs at most {GOAL_RATIO} times the floor",
            f"{ratio:.2f} times ({spent:.0f} µs, the floor {base:.0f} µs)",
            met=ratio <= GOAL_RATIO,
        )
    ]
    if NODE in contenders:
        peer = contenders[NODE]["medians"]["processor_microseconds"]
        lines.append(
            _judged(
                "a token costs less than node-oidc-provider's",
                f"{spent:.0f} µs, the other {peer:.0f} µs",
                met=spent < peer,
            )
        )
    return "\n".join(lines)


def _judged(goal: str, found: str, *, met: bool) -> str:
    return f"- Goal: {goal}. {'Met' if met else '**Missed**'}: {found}."


def _circumstances(result: Mapping[str, Any]) -> str:
    machine, plan = result["machine"], result["plan"]
    before, after = machine["load_averages"]
    own = any("connections" in each for each in result["contenders"])
    connections = "connections as told" if own else f"{plan['connections']} connections"
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        f"{result['measured_at']}, commit {result['commit']}. {machine['processors']} processors "
        f"({machine['processor_model']}, {machine['system']}), load average {before} before and "
        f"{after} after. {plan['rounds']} rounds of {plan['seconds']} s after a warm-up, "
        f"{connections}. {versions}."
    )


_INTRODUCTION = """# Results

Written by `make bench`; [how it measures](../README.md). Each number is the median of the rounds,
which the JSON files beside this page hold. CPU is the user and system time of the server's whole
process tree, divided by the requests that it answered; the ratio compares with the floor of the
same round. Every server has one worker process. Absolute times belong to the machine and to what
else ran on it; the ratios are what to look at."""
