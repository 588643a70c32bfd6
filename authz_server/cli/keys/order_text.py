"""The result of an order as text."""

from collections.abc import Iterator

from authz_server.cli.keys.consumers_text import consumer_lines
from authz_server.cli.plain_text import timestamp
from authz_server.operations.keys.affected_tokens import AffectedTokens
from authz_server.operations.keys.results import (
    KeyChanged,
    OrderResult,
    RingChanged,
    RotationResult,
    WithdrawalResult,
)
from keys.plurals import counted

#: The number of clients that are named; JSON has all.
NAMED_CLIENTS = 10
#: In other states these times are in the past.
_TIMED_STATES = {
    "activate_at": {"published"},
    "remove_after": {"retired", "tainted"},
}
_STEPS = {
    "create": "a new version is to be made",
    "fence": "nothing below version {version} is to sign any more",
    "destroy": "all versions below {version} are to be deleted permanently",
}
_NOW = "now"


def result_lines(result: OrderResult) -> Iterator[str]:
    """Yield the lines about a result."""
    yield _headline(result)
    if result.dry_run:
        yield from _planned_lines(result)
    else:
        yield from _done_lines(result)
    yield from (f"  {line}" for line in _details(result))


def _headline(result: OrderResult) -> str:
    if result.dry_run:
        return f"Plan for the ring {result.ring} at epoch {result.epoch}. Nothing was changed."
    if not result.written and not result.failures:
        return f"{result.ring}: nothing to do."
    if result.failures:
        return f"{result.ring}: {'done in part' if result.written else 'not done'}."
    return f"{result.ring}: done."


def _planned_lines(result: OrderResult) -> Iterator[str]:
    at = timestamp(result.at) or _NOW
    for change in result.changes:
        yield from _change_lines(at, change)
    for step in result.at_backend:
        yield _line("backend", _STEPS[step.act].format(version=step.version))
    yield from _wait_lines(result)


def _done_lines(result: OrderResult) -> Iterator[str]:
    for change in result.changes if result.written else ():
        yield from _change_lines(_NOW, change)
    if result.created:
        yield _line("backend", f"version {result.created.version} was made: {result.created.kid}")
    if result.fenced is not None:
        yield _line("backend", f"nothing below version {result.fenced} signs any more")
    yield from _wait_lines(result)
    for step, seconds in result.seconds.items():
        yield _line("took", f"{step} after {seconds:.3f} s")


def _wait_lines(result: OrderResult) -> Iterator[str]:
    for wait in result.waits:
        yield _line(timestamp(wait.until) or "later", wait.what)
        yield _line("", wait.why)


def _change_lines(when: str, change: RingChanged | KeyChanged) -> Iterator[str]:
    """Yield the change and, in lines below it, its reason and times."""
    if isinstance(change, RingChanged):
        yield _line(when, change.event)
        yield _line("", change.reason)
        return
    yield _line(when, f"{change.event} {change.kid}")
    times = [
        f"{name} {timestamp(getattr(change, field))}"
        for name, field in (("signs from", "activate_at"), ("leaves the JWKS", "remove_after"))
        if getattr(change, field) and change.state in _TIMED_STATES[field]
    ]
    yield _line("", ", ".join([f"version {change.version}: {change.reason}", *times]))


def _line(when: str, what: str) -> str:
    return f"  {when:<20}  {what}"


def _details(result: OrderResult) -> Iterator[str]:
    match result:
        case RotationResult():
            yield from consumer_lines(result.readers)
        case WithdrawalResult(command="revoke"):
            yield from _impact_lines(result.impact)
        case WithdrawalResult():
            yield from _token_lines(result.impact)


def _impact_lines(impact: AffectedTokens) -> Iterator[str]:
    yield from _token_lines(impact)
    refused = impact.introspection_refuses_within_seconds
    yield f"Introspection on every node refuses it within {refused} s."
    yield "Verifiers without introspection accept it, and forged tokens, until they fetch the JWKS:"
    obeyed = impact.jwks_maximum_age_seconds
    yield f"  at most {obeyed} s where they obey its max-age, often 24 h where they do not."


def _token_lines(impact: AffectedTokens) -> Iterator[str]:
    yield from _known_lines(impact)
    if impact.no_token_lives_after:
        yield f"No token of it lives after {timestamp(impact.no_token_lives_after)}."


def _known_lines(impact: AffectedTokens) -> Iterator[str]:
    if impact.tokens is None:
        yield "Issued tokens cannot be counted here: the audit records do not go to a file."
        return
    clients = impact.clients or ()
    named = ", ".join(clients[:NAMED_CLIENTS])
    more = len(clients) - NAMED_CLIENTS
    named += f" and {more} more" if more > 0 else ""
    tokens = counted(impact.tokens, "of its tokens is", "of its tokens are")
    tokens += f" in force by {impact.records}"
    if not clients:
        yield f"{tokens}."
    else:
        yield f"{tokens}, of {counted(len(clients), 'client')}: {named}."
        yield f"The last of those expires at {timestamp(impact.last_expires_at)}."
    if not impact.complete:
        since = timestamp(impact.records_since) or "this moment"
        yield f"That file begins at {since}, so there may be more; each node has its own file."
