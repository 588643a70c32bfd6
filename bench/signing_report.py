"""The table of signatures, and what it says."""

from collections.abc import Iterable, Mapping
from typing import Any

_COLUMNS = (
    ("signatures/s", "signatures_per_second", ",.0f"),
    ("share of the best", "share_of_best", ".0%"),
    ("client's CPU µs", "client_processor_microseconds", ",.0f"),
    ("OpenBao's CPU µs", "vault_processor_microseconds", ",.0f"),
    ("its CPU, times the best", "vault_times_best", ".2f"),
    ("p50 µs", "p50_microseconds", ",.0f"),
    ("p99 µs", "p99_microseconds", ",.0f"),
)
_READING = """CPU is per signature. The client is wrk where OpenBao is alone, and the authz-server
process elsewhere, which also reads the request, checks the client, verifies the signature with the
published key and writes the audit record. The best is what this OpenBao signed in the same round
when nothing else was asked of it; client, server and OpenBao share the same processors throughout.
The times to answer are those of a request, which for the best brings 100 signatures."""


def signing_section(result: Mapping[str, Any]) -> str:
    """Return table and sentences of one result file."""
    return "\n\n".join([_table(result["contenders"]), _worth(result["contenders"]), _READING])


def _table(signers: Iterable[Mapping[str, Any]]) -> str:
    titles = ["", "what it does", "connections", *(title for title, _, _ in _COLUMNS)]
    lines = [titles, ["---", "---", "---:", *("---:" for _ in _COLUMNS)]]
    for each in signers:
        medians = each["medians"]
        cells = [
            format(medians[name], form) if name in medians else "" for _, name, form in _COLUMNS
        ]
        lines.append([each["name"], each["does"], str(each["connections"]), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _worth(signers: Iterable[Mapping[str, Any]]) -> str:
    found = {(each["name"], each["connections"]): each["medians"] for each in signers}
    batched = found["authz-server, transit", 32]
    alone = found["authz-server, transit, batching off", 32]
    local = found["authz-server, local", 32]

    def ratio(name: str, other: Mapping[str, float]) -> str:
        return f"{batched[name] / other[name]:.2f}"

    ours, theirs = "client_processor_microseconds", "vault_processor_microseconds"
    return (
        "With 32 connections, batching gives "
        f"{ratio('signatures_per_second', alone)} times the tokens of a call each, for "
        f"{ratio(ours, alone)} times the server's processor time and {ratio(theirs, alone)} times "
        f"OpenBao's. A token through transit costs the server {ratio(ours, local)} times one that "
        "it signs itself."
    )
