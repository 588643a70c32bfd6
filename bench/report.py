"""Result files: one JSON for each part with its rounds, one Markdown page for all of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.columns import COLUMNS, RATIOS_OF_ONE_LINE
from bench.environment import describe_commit, describe_machine, describe_versions
from bench.goals import goals_section
from bench.turns import Plan

RESULTS = Path(__file__).with_name("results")
#: The part of bench/signing.py.
KEYS = "keys"
#: The part of bench/status_lists.py.
STATUS = "status"
#: The part of bench/introspection_forms.py.
FORMS = "batch"
#: The part of bench/verifiers.py and bench/guarded.py.
VERIFIER = "verifier"
_TITLES = {
    "token": "Tokens",
    "introspection": "Introspection",
    "connections": "New connections",
    "workers": "Worker processes",
    "clients": "Client authentication and bound tokens",
    "latency": "Latency at a fixed rate",
    "overload": "Overload",
    STATUS: "Status lists",
    FORMS: "Introspection alone, signed and in batches",
    VERIFIER: "Verification at a resource server",
    KEYS: "Signatures by a Vault",
}


def make_result(
    groups: Sequence[Mapping[str, Any]], plan: Plan, objection: str, load_averages: Sequence[float]
) -> dict[str, Any]:
    """Return what is written of one part.

    Args:
        groups: what was measured.
        plan: how much.
        objection: why the ratios mean nothing, in which case they are left out; or empty.
        load_averages: before and after.
    """
    if objection:
        for row in (row for each in groups for table in each["tables"] for row in table["rows"]):
            row["ratios"] = {}
            for values in (row["medians"], *row["rounds"]):
                for name in RATIOS_OF_ONE_LINE:
                    values.pop(name, None)
    return {
        "measured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": describe_commit(),
        "machine": describe_machine() | {"load_averages": list(load_averages)},
        "versions": describe_versions(),
        "plan": asdict(plan),
        "busy": objection,
        "groups": list(groups),
    }


def write_result(part: str, result: Mapping[str, Any], directory: Path) -> None:
    """Write one part's file and the page over all files in the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2, ensure_ascii=False)
    (directory / f"{part}.json").write_text(f"{text}\n", encoding="utf-8")
    (directory / "README.md").write_text(make_page(directory), encoding="utf-8")


def make_page(directory: Path) -> str:
    """Return the Markdown page over the result files in a directory."""
    sections = [_INTRODUCTION]
    for part, title in _TITLES.items():
        path = directory / f"{part}.json"
        if path.is_file():
            result = json.loads(path.read_text(encoding="utf-8"))
            sections.append(f"## {title}\n\n{_section(part, result)}")
    if len(sections) == 1:
        sections.append("No part has been measured yet.")
    return "\n\n".join(sections) + "\n"


def _section(part: str, result: Mapping[str, Any]) -> str:
    paragraphs = [f"**{result['busy']}. So there are no ratios.**"] if result["busy"] else []
    for group in result["groups"]:
        paragraphs += [f"### {group['title']}"] if group["title"] else []
        for table in group["tables"]:
            paragraphs += _table_paragraphs(table)
        absent = group["not_measured"].items()
        paragraphs += [f"Not measured: {name}: {why}." for name, why in absent]
        paragraphs += _starts(group)
    if not result["busy"]:
        paragraphs += goals_section(part, result)
    if part == KEYS:
        paragraphs += [*_batching(result), _READING_KEYS]
    return "\n\n".join([*paragraphs, _circumstances(result)])


def _table_paragraphs(table: Mapping[str, Any]) -> list[str]:
    paragraphs = [f"{table['title']}:"] if table["title"] else []
    if table["rows"]:
        paragraphs.append(_table(table))
    paragraphs += [f"Stopped without a result: {n}: {why}" for n, why in table["stopped"].items()]
    if limited := table.get("limited_by_generator"):
        names = ", ".join(limited)
        paragraphs.append(f"The load generator used its whole core, and so was the limit: {names}.")
    if unfinished := table.get("unfinished"):
        shares = ", ".join(f"{name} {share:.0%}" for name, share in unfinished.items())
        paragraphs.append(
            "Requests under way at the end of a turn, as a share of those answered: "
            f"{shares}. The CPU per request may be too high by as much."
        )
    return paragraphs


def _table(table: Mapping[str, Any]) -> str:
    columns = COLUMNS[table["kind"]]
    titles = ["", "work of a request", *(column.title for column in columns)]
    lines = [titles, ["---", "---", *("---:" for _ in columns)]]
    for row in table["rows"]:
        values = row["medians"] | row["ratios"] | {"connections": row.get("connections")}
        lines.append([row["name"], row["does"], *(column.cell(values) for column in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _starts(group: Mapping[str, Any]) -> list[str]:
    seconds = {
        row["name"]: row["start_seconds"]
        for table in group["tables"]
        for row in table["rows"]
        # There, many lines share a server.
        if "start_seconds" in row and table["kind"] not in ("clients", "guarded")
    }
    if not seconds:
        return []
    listed = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    return [f"From start to the first connection: {listed}."]


def _batching(result: Mapping[str, Any]) -> list[str]:
    """Return what batching is worth, if all three that show it have a result."""
    found = {
        (row["name"], row["connections"]): row["medians"]
        for group in result["groups"]
        for table in group["tables"]
        for row in table["rows"]
    }
    names = ("authz-server, transit", "authz-server, transit, batching off", "authz-server, local")
    if result["busy"] or any((name, 32) not in found for name in names):
        return []
    batched, alone, local = (found[name, 32] for name in names)

    def ratio(name: str, other: Mapping[str, float]) -> str:
        return f"{batched[name] / other[name]:.2f}"

    client, vault = "client_processor_microseconds", "vault_processor_microseconds"
    worth = (
        f"{ratio('signatures_per_second', alone)} times the tokens of a call each, for "
        f"{ratio(client, alone)} times the server's processor time and {ratio(vault, alone)} "
        "times OpenBao's"
    )
    local_ratio = f"{ratio(client, local)} times one that it signs itself"
    sentence = f"With 32 connections, batching gives {worth}. A token through transit costs the "
    return [f"{sentence}server {local_ratio}."]


def _circumstances(result: Mapping[str, Any]) -> str:
    machine, plan = result["machine"], result["plan"]
    before, after = machine["load_averages"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        f"{result['measured_at']}, commit {result['commit']}. {machine['processors']} processors "
        f"({machine['processor_model']}, {machine['system']}), load average {before} before and "
        f"{after} after. {plan['rounds']} rounds of {plan['seconds']} s after a warm-up of "
        f"{plan['warm_up_seconds']} s, before that {plan['jit_warm_up_seconds']} s for Java. "
        f"{versions}."
    )


_INTRODUCTION = """# Results

Written by `make bench`; [how it measures](../README.md). Each number is the median of the rounds,
which the JSON files beside this page hold. CPU is the user and system time of the server's whole
process tree, divided by the requests that it answered; a database server's is counted apart. A
ratio compares that time with another one's in the same round. A server has one worker process where
nothing else is named. Absolute times belong to the machine; the ratios are what to look at."""
_READING_KEYS = """CPU is per signature. The client is wrk where OpenBao is alone, and the
authz-server process elsewhere, which also reads the request, checks the client, verifies the
signature with the published key and writes the audit record. The best is what this OpenBao signed
in the same round when nothing else was asked of it; client, server and OpenBao share the same
processors throughout. The times to answer are those of a request, which for the best brings 100
signatures."""
