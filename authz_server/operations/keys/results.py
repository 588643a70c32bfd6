"""The result of an order or a tick; its fields are the members of the JSON that commands print."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from authz_server.operations.keys.affected_tokens import AffectedTokens
from authz_server.operations.keys.consumers import StandbyConsumers
from authz_server.operations.keys.context import KeyContext, Notices
from keys.events import Alarm
from keys.jose.jwk import thumbprint
from keys.lifecycle.plan import Plan, Wait
from keys.lifecycle.rotator import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class RingChanged:
    """A change of the ring; ``kid`` is None."""

    kid: None = None
    event: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChanged:
    """A change of one key, with its new state."""

    kid: str
    event: str
    reason: str
    version: int
    state: str
    activate_at: datetime | None
    remove_after: datetime | None


@dataclass(frozen=True, slots=True)
class BackendStep:
    """A step at the backend: ``create``, ``fence`` or ``destroy``, and the lowest kept version."""

    act: str
    version: int | None


@dataclass(frozen=True, slots=True)
class CreatedVersion:
    """A version that the backend made."""

    version: int
    kid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderResult:
    """The result of an order or a tick for one ring.

    Attributes:
        command: the name of the command.
        ring: the name of the ring.
        epoch: the epoch of the ring before.
        at: the present time.
        dry_run: True if it was only planned.
        written: True if a change was written.
        changes: the changes, in the order of their events.
        at_backend: the planned steps at the backend.
        created: the version that was made.
        fenced: the lowest version that may sign, confirmed by the backend.
        waits: the changes that are not due yet.
        alarms: the alarms for operators.
        failures: the steps that failed, as text; the others were done.
        seconds: the duration of each step, by its name.
    """

    command: str
    ring: str
    epoch: int
    at: datetime
    dry_run: bool
    written: bool
    changes: tuple[RingChanged | KeyChanged, ...]
    at_backend: tuple[BackendStep, ...]
    created: CreatedVersion | None
    fenced: int | None
    waits: tuple[Wait, ...]
    alarms: tuple[Alarm, ...]
    failures: tuple[str, ...]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationResult(OrderResult):
    """The result of a rotation, with the readers of the key that signs next."""

    readers: StandbyConsumers | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalResult(OrderResult):
    """The result of a taint or a revocation, with the tokens that it affects."""

    impact: AffectedTokens


def result_fields(
    context: KeyContext, command: str, outcome: Outcome, *, dry_run: bool
) -> dict[str, Any]:
    """Return the values of the fields of :class:`OrderResult` for an outcome."""
    plan, created = outcome.plan, outcome.created
    return {
        "command": command,
        "ring": plan.ring.name,
        "epoch": plan.ring.epoch,
        "at": context.now(),
        "dry_run": dry_run,
        "written": outcome.written,
        "changes": tuple(_changes(plan)),
        "at_backend": tuple(_backend_steps(plan)),
        "created": created and CreatedVersion(int(created.ref), thumbprint(created.jwk)),
        "fenced": None if outcome.fenced is None else int(outcome.fenced),
        "waits": plan.waits,
        "alarms": tuple(_alarms(plan, context.notices)),
        "failures": (*outcome.failures, *_outages(context.notices)),
        "seconds": {step: round(seconds, 4) for step, seconds in outcome.seconds.items()},
    }


def _alarms(plan: Plan, notices: Notices) -> Iterator[Alarm]:
    planned = {(alarm.event, alarm.subject): alarm.detail for alarm in plan.alarms}
    for (event, subject), detail in (notices.alarms | planned).items():
        yield Alarm(event, subject, detail)


def _outages(notices: Notices) -> Iterator[str]:
    reasons = set(notices.outages.values())
    for uri, reason in notices.outages.items():
        # A ring's outage names the Vault's and its reason.
        if f"{uri}: {reason}" not in reasons:
            yield f"{uri} does not answer: {reason}"


def _changes(plan: Plan) -> Iterator[RingChanged | KeyChanged]:
    if plan.ring_change is not None:
        yield RingChanged(event=plan.ring_change.event, reason=plan.ring_change.reason)
    for change in plan.changes:
        key = change.key
        yield KeyChanged(
            kid=key.kid,
            event=change.event,
            reason=change.reason,
            version=key.version,
            state=key.state.value,
            activate_at=key.activate_at,
            remove_after=key.remove_after,
        )


def _backend_steps(plan: Plan) -> Iterator[BackendStep]:
    if plan.create:
        yield BackendStep("create", None)
    if plan.fence is not None:
        yield BackendStep("fence", int(plan.fence))
    if plan.destroy is not None:
        yield BackendStep("destroy", int(plan.destroy))
