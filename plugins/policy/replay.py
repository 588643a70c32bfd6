"""Compare a changed policy with the token requests of an audit file; the command ``policy``."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from authz_server.plugin_api import PluginServices, TokenDecision
from plugins.policy.rules import Outcome, Policy, read_policy

_LINES_OF_REPLAY = 50
#: The facts of a refused request, at the end of its audit detail.
_FACTS = re.compile(r" \[grant_type=(\S*) scope=([^\]]*)\]$")


@dataclass(frozen=True, slots=True)
class Difference:
    """A kind of request that a changed policy decides in another way."""

    client_id: str
    scope: str
    was: str
    would_be: str


def replay(
    policy: Policy, lines: Iterable[str], since: datetime
) -> tuple[int, Counter[Difference]]:
    """Return the number of recorded token requests, and those that a policy would change.

    Args:
        policy: the changed policy.
        lines: the lines of the audit file.
        since: earlier records are left out.
    """
    number, differences = 0, Counter[Difference]()
    for request, at, was in _recorded_requests(lines):
        if at < since:
            continue
        number += 1
        outcome = policy.decide(request, at)
        would_be = _in_words(request, outcome)
        if would_be != was:
            scope = " ".join(request.scopes)
            differences[Difference(request.client_id, scope, was, would_be)] += 1
    return number, differences


def _recorded_requests(lines: Iterable[str]) -> Iterator[tuple[TokenDecision, datetime, str]]:
    """Yield each request of the audit file, with its time and its outcome."""
    for line in lines:
        if '"token.issued"' not in line and '"refused_by_policy"' not in line:
            continue
        try:
            record = json.loads(line)
            at = datetime.fromisoformat(record["time"])
            if record["event"] == "token.issued":
                scope, grant_type = record["scope"], record["grant_type"]
                seconds, was = record["expires_at"] - int(at.timestamp()), "issued"
            else:
                facts = _FACTS.search(record["detail"])
                if facts is None or not record["detail"].startswith("plugin policy: "):
                    continue
                grant_type, scope, seconds, was = facts[1], facts[2], 0, "refused"
            request = TokenDecision(
                record["client_id"],
                grant_type,
                tuple(scope.split()),
                tuple(record.get("audience", ())),
                max(1, seconds),
                source_address=record["source_address"],
                authentication_method=record.get("authentication_method", ""),
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            # A line that was cut off, or of another program.
            continue
        yield request, at, was


def _in_words(request: TokenDecision, outcome: Outcome) -> str:
    permitted = outcome.request
    if permitted is None:
        return "refused"
    removed = [each for each in request.scopes if each not in permitted.scopes]
    words = f"issued without {' '.join(removed)}" if removed else "issued"
    # The recorded times are rounded to seconds.
    if permitted.lifetime_seconds < request.lifetime_seconds - 1:
        words += f" for {permitted.lifetime_seconds} s"
    return words


def make_command(services: PluginServices) -> click.Command:
    """Return the command ``policy``, whose argument is what to do."""

    @click.command(
        "policy",
        help="Compare a changed policy with the recorded token requests: policy replay FILE.",
    )
    @click.argument("verb", type=click.Choice(["replay", "check"]))
    @click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
    @click.option("--audit", multiple=True, type=click.Path(exists=True, path_type=Path))
    @click.option("--days", default=7, show_default=True, type=click.IntRange(1))
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    def policy(verb: str, file: Path, audit: tuple[Path, ...], days: int, *, as_json: bool) -> None:
        try:
            changed = read_policy(file)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        if verb == "check":
            click.echo(f"{file}: {len(changed.rules)} rules")
            return
        sources = audit or _find_audit(services.audit_destination)
        since = datetime.now(UTC) - timedelta(days=days)
        number, differences = replay(changed, _read_lines(sources), since)
        click.echo(_as_json(number, differences) if as_json else _as_text(number, differences))

    return policy


def _find_audit(destination: str) -> tuple[Path, ...]:
    if destination in {"stdout", "stderr"} or not Path(destination).exists():
        raise click.ClickException("audit.destination is not a file: name one with --audit.")
    return (Path(destination),)


def _read_lines(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from file


def _as_text(number: int, differences: Counter[Difference]) -> str:
    lines = [f"{number} token requests, {differences.total()} would differ."]
    for each, count in differences.most_common(_LINES_OF_REPLAY):
        lines.append(f"{count:>8}  {each.client_id}  {each.scope}: {each.was} -> {each.would_be}")
    if len(differences) > _LINES_OF_REPLAY:
        lines.append(f"          and {len(differences) - _LINES_OF_REPLAY} further kinds")
    return "\n".join(lines)


def _as_json(number: int, differences: Counter[Difference]) -> str:
    found = [
        {
            "client_id": each.client_id,
            "scope": each.scope,
            "was": each.was,
            "would_be": each.would_be,
            "count": count,
        }
        for each, count in differences.most_common()
    ]
    return json.dumps({"requests": number, "differences": found}, indent=2)
