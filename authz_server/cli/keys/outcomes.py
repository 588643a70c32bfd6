"""How plans and what came of them are told, and the exit status that cron sees.

0: done, or nothing to do. 1: refused or failed, and nothing was changed. 2: the command was called
wrongly. 3: done in part; what is missing is said on the error stream, and ticks go on trying.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from authz_server.cli.invocation import Invocation
from authz_server.cli.keys.composition import CommandObserver, KeyOperations, key_operations
from authz_server.cli.output import echo_status, print_json, timestamp
from keys.jose.jwk import thumbprint
from keys.lifecycle.plan import Plan
from keys.lifecycle.rotator import Outcome, Rotator

DONE_IN_PART = 3
Order = Callable[[Rotator, bool], Outcome]
_NOW = "now"


def describe_outcome(
    verb: str, outcome: Outcome, operations: KeyOperations, *, dry_run: bool
) -> dict[str, Any]:
    """Return what a command did, or would do, as JSON; its members are documented and stay."""
    plan, observer = outcome.plan, operations.observer
    return {
        "command": verb,
        "ring": plan.ring.name,
        "epoch": plan.ring.epoch,
        "at": timestamp(operations.now()),
        "dry_run": dry_run,
        "written": outcome.written,
        "changes": [*_changes(plan)],
        "at_backend": [*_backend_steps(plan)],
        "created": outcome.created
        and {
            "version": int(outcome.created.ref),
            "kid": thumbprint(outcome.created.jwk),
        },
        "fenced": None if outcome.fenced is None else int(outcome.fenced),
        "waits": [
            {"what": wait.what, "until": timestamp(wait.until), "why": wait.why}
            for wait in plan.waits
        ],
        "alarms": _alarms(plan, observer),
        "failures": [*outcome.failures, *_outages(observer)],
        "seconds": {step: round(seconds, 4) for step, seconds in outcome.seconds.items()},
    }


def _alarms(plan: Plan, observer: CommandObserver) -> list[dict[str, str]]:
    told = {(alarm.event, alarm.subject): alarm.detail for alarm in plan.alarms}
    return [
        {"event": event, "subject": subject, "detail": detail}
        for (event, subject), detail in (observer.alarms | told).items()
    ]


def _outages(observer: CommandObserver) -> Iterator[str]:
    for uri, reason in observer.outages.items():
        yield f"{uri} does not answer: {reason}"


def _changes(plan: Plan) -> Iterator[dict[str, Any]]:
    if plan.ring_change is not None:
        yield {"kid": None, "event": plan.ring_change.event, "reason": plan.ring_change.reason}
    for change in plan.changes:
        key = change.key
        yield {
            "kid": key.kid,
            "event": change.event,
            "reason": change.reason,
            "version": key.version,
            "state": key.state.value,
            "activate_at": timestamp(key.activate_at),
            "remove_after": timestamp(key.remove_after),
        }


def _backend_steps(plan: Plan) -> Iterator[dict[str, Any]]:
    if plan.create:
        yield {"act": "create", "version": None}
    if plan.fence is not None:
        yield {"act": "fence", "version": int(plan.fence)}
    if plan.destroy is not None:
        yield {"act": "destroy", "version": int(plan.destroy)}


def _headline(record: Mapping[str, Any]) -> str:
    if record["dry_run"]:
        return (
            f"Plan for the ring {record['ring']} at epoch {record['epoch']}. Nothing was changed."
        )
    if not record["written"] and not record["failures"]:
        return f"{record['ring']}: nothing to do."
    return f"{record['ring']}: {_done(record)}"


def _done(record: Mapping[str, Any]) -> str:
    if record["failures"]:
        return "done in part." if record["written"] else "not done."
    return "done."


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    planned = record["dry_run"]
    for change in record["changes"] if planned or record["written"] else ():
        yield from _change_lines(record["at"] if planned else _NOW, change)
    for step in record["at_backend"] if planned else ():
        yield _line("backend", _STEPS[step["act"]].format(version=step["version"]))
    if record["created"]:
        yield _line("backend", "version {version} was made: {kid}".format(**record["created"]))
    if record["fenced"] is not None:
        yield _line("backend", f"nothing below version {record['fenced']} signs any more")
    for wait in record["waits"]:
        yield _line(wait["until"] or "later", wait["what"])
        yield _line("", wait["why"])
    for step, seconds in () if planned else record["seconds"].items():
        yield _line("took", f"{step} after {seconds:.3f} s")


#: In other states these times are of the past.
_TIMED_STATES = {
    "activate_at": {"published"},
    "remove_after": {"retired", "tainted"},
}
_STEPS = {
    "create": "a new version is to be made",
    "fence": "nothing below version {version} is to sign any more",
    "destroy": "everything below version {version} is to be deleted for good",
}


def _change_lines(when: str, change: Mapping[str, Any]) -> Iterator[str]:
    """Yield what changes, and below it why and from when on: neither fits beside a key's id."""
    if change["kid"] is None:
        yield _line(when, change["event"])
        yield _line("", change["reason"])
        return
    yield _line(when, f"{change['event']} {change['kid']}")
    times = [
        f"{name} {change[field]}"
        for name, field in (("signs from", "activate_at"), ("leaves the JWKS", "remove_after"))
        if change[field] and change["state"] in _TIMED_STATES[field]
    ]
    yield _line("", ", ".join([f"version {change['version']}: {change['reason']}", *times]))


def _line(when: str, what: str) -> str:
    return f"  {when:<20}  {what}"


@dataclass(frozen=True, slots=True)
class Addition:
    """What a command tells beside its outcome: ``fields`` in JSON, ``lines`` to a person."""

    fields: dict[str, Any] = field(default_factory=dict)
    lines: Sequence[str] = ()


def tell_outcome(
    record: Mapping[str, Any], lines: Sequence[str], *, as_json: bool, err: bool = False
) -> int:
    """Tell of one outcome and return the exit status; as JSON, only what went wrong is told.

    Args:
        record: what :func:`describe_outcome` returned.
        lines: what else is told.
        as_json: whether the record was printed as JSON.
        err: tell everything on the error stream.
    """
    if not as_json:
        for line in (_headline(record), *_lines(record), *(f"  {line}" for line in lines)):
            click.echo(line, err=err)
    for alarm in record["alarms"]:
        echo_status(f"ALARM {alarm['event']} {alarm['subject']}: {alarm['detail']}")
    for failure in record["failures"]:
        echo_status(f"NOT DONE {record['ring']}: {failure}")
    return DONE_IN_PART if record["failures"] else 0


def carry_out(  # noqa: PLR0913 - what commands differ in, by name
    invocation: Invocation,
    verb: str,
    order: Order,
    *,
    dry_run: bool,
    as_json: bool,
    tell: Callable[[KeyOperations, Outcome], Addition] | None = None,
    question: str = "",
) -> None:
    """Carry out an operator's order, tell of it, and leave with the exit status.

    Args:
        invocation: the run of the command line.
        verb: the command's name.
        order: gives the order; the flag says whether it only plans.
        dry_run: whether it only plans.
        as_json: whether JSON is wanted.
        tell: returns what else is to be told.
        question: asked on a terminal, below the plan, before anything is changed; empty: none.

    Raises:
        KeysError: it was refused, or it failed and nothing was changed.
        click.Abort: the answer was no.
    """
    if question and not dry_run and sys.stdin.isatty():
        with key_operations(invocation, "order", looking=True) as operations:
            record, lines = _give(order, operations, verb, tell, dry_run=True)
        tell_outcome(record, lines, as_json=False, err=True)
        click.confirm(question, abort=True, err=True)
    with key_operations(invocation, "order", looking=dry_run) as operations:
        record, lines = _give(order, operations, verb, tell, dry_run=dry_run)
    if as_json:
        print_json(record)
    status = tell_outcome(record, lines, as_json=as_json)
    click.get_current_context().exit(status)


def _give(
    order: Order,
    operations: KeyOperations,
    verb: str,
    tell: Callable[[KeyOperations, Outcome], Addition] | None,
    *,
    dry_run: bool,
) -> tuple[dict[str, Any], Sequence[str]]:
    """Give an order; return what is told of it, for programs and as lines for a person."""
    outcome = order(operations.rotator, dry_run)
    addition = tell(operations, outcome) if tell else Addition()
    record = describe_outcome(verb, outcome, operations, dry_run=dry_run)
    return record | addition.fields, addition.lines
