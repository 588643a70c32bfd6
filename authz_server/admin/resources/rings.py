"""Key rings and their keys: show them, and carry out orders."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from authz_server.admin.calls import Call, Reply
from authz_server.admin.resources.clients import Instant
from authz_server.errors import NotFoundError
from authz_server.operations.keys.calendar.svg import describe, render_svg
from authz_server.operations.keys.calendar.words import Language
from authz_server.operations.keys.list import (
    KeyView,
    RingView,
    describe_keys,
    describe_ring,
    load_rings,
)
from authz_server.operations.keys.orders import apply_order, tick_ring
from authz_server.operations.keys.results import OrderResult
from authz_server.operations.keys.status import (
    RingStatus,
    find_overdue,
    report_ring,
    report_rings,
)
from keys.lifecycle.calendar import Milestone, draw_calendar
from keys.lifecycle.orders import (
    Activate,
    Destroy,
    Freeze,
    Move,
    Order,
    Prune,
    Revoke,
    Rotate,
    Taint,
    Unfreeze,
)
from keys.signing_key import RingSnapshot

Reason = Annotated[str, Meta(min_length=1, max_length=300)]


class OrderBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of an order.

    Attributes:
        reason: the recorded reason.
    """

    reason: Reason

    def __post_init__(self) -> None:
        if not self.reason.isprintable():
            raise ValueError("reason: use printable characters")


class Activation(OrderBody, frozen=True, kw_only=True):
    """The activation of a key.

    Attributes:
        at: the time of the activation; null: now.
        emergency: activate it before verifiers certainly know it.
    """

    at: Instant | None = None
    emergency: bool = False


class Revocation(OrderBody, frozen=True, kw_only=True):
    """The revocation of a key.

    Attributes:
        all_versions: revoke every key of its ring.
    """

    all_versions: bool = False


class Succession(OrderBody, frozen=True, kw_only=True):
    """The succession of a ring by another one.

    Attributes:
        successor: the name of the ring that is to sign instead.
        at: the time at which it begins to sign; null: as soon as verifiers surely know its key.
    """

    successor: Annotated[str, Meta(min_length=1, max_length=200)]
    at: Instant | None = None


class OrderAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an order, as ``keys rotate --json`` prints it, and the ring after it."""

    command: str
    at: datetime
    written: bool
    failures: tuple[str, ...]


class ReportQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of the report of key rings.

    Attributes:
        ring: the name of the only ring of the report; null: all.
    """

    ring: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


class CalendarQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of a calendar.

    Attributes:
        language: the language of the picture and of the description.
    """

    language: Language = "en"


class RingCalendar(msgspec.Struct, frozen=True, kw_only=True):
    """The calendar of a ring.

    Attributes:
        ring: the name of the ring.
        at: the present time, by the database's clock.
        description: the calendar as text.
        planned: the planned changes, soonest first.
        overdue: the changes that should have happened.
        svg: the calendar as a picture, for a page that has its dark colours.
    """

    ring: str
    at: datetime
    description: str
    planned: tuple[Milestone, ...]
    overdue: tuple[str, ...]
    svg: str


def list_rings(call: Call) -> Reply:
    """Answer a page of key rings, by name."""
    rings = [describe_ring(ring) for ring in load_rings(call.services)]
    return call.page(rings, lambda ring: ring.name, whole=True)


def load_ring(call: Call) -> RingView:
    """Return the ring of the path."""
    return describe_ring(_ring(call))


def show_ring(call: Call) -> Reply:
    """Answer a key ring."""
    return Reply(load_ring(call))


def show_status(call: Call) -> Reply:
    """Answer the status of a key ring: its keys, backend, nodes, readers and plans."""
    rings = load_rings(call.services)
    ring = _find_ring(rings, call.parameters["ring"])
    context = call.parts.keys.open(call.caller.actor, looking=True)
    status: RingStatus = report_ring(context, ring, rings).status
    return Reply(status)


def report_all(call: Call) -> Reply:
    """Answer the status and the calendar of every key ring, or of one."""
    query: ReportQuery = call.query
    name = None if query.ring is None else _find_ring(load_rings(call.services), query.ring).name
    context = call.parts.keys.open(call.caller.actor, looking=True)
    return Reply(report_rings(context, name))


def show_calendar(call: Call) -> Reply:
    """Answer the calendar of a key ring, also as a picture."""
    query: CalendarQuery = call.query
    rings = load_rings(call.services)
    ring = _find_ring(rings, call.parameters["ring"])
    calendar = draw_calendar(ring, rings, call.services.settings.keys.timing(), ring.loaded_at)
    drawn = RingCalendar(
        ring=ring.name,
        at=calendar.now,
        description=describe(calendar, query.language),
        planned=calendar.milestones,
        overdue=tuple(find_overdue(ring, rings, calendar.now)),
        svg=render_svg(
            [calendar],
            f"{ring.name}-",
            legend=False,
            style=False,
            language=query.language,
        ),
    )
    return Reply(drawn)


def list_ring_keys(call: Call) -> Reply:
    """Answer a page of the keys of a ring, by version."""
    return call.page(describe_keys(_ring(call)), lambda key: key.version, whole=True)


def load_key(call: Call) -> KeyView:
    """Return the key of the path."""
    kid = call.parameters["kid"]
    for key in describe_keys(_ring(call)):
        if key.kid == kid:
            return key
    raise NotFoundError(f"The ring {call.parameters['ring']!r} has no key {kid!r}.")


def show_key(call: Call) -> Reply:
    """Answer a key."""
    return Reply(load_key(call))


def rotate(call: Call) -> Reply:
    """Create the next version; the present standby takes over as soon as it may."""
    return _carry_out(call, Rotate(call.parameters["ring"], call.body.reason))


def freeze(call: Call) -> Reply:
    """Stop all automatic changes of a ring; its active key keeps signing."""
    return _carry_out(call, Freeze(call.parameters["ring"], call.body.reason))


def unfreeze(call: Call) -> Reply:
    """Let a frozen ring change again."""
    return _carry_out(call, Unfreeze(call.parameters["ring"], call.body.reason))


def move(call: Call) -> Reply:
    """Let another ring sign in the place of a ring."""
    body: Succession = call.body
    order = Move(call.parameters["ring"], body.successor, body.reason, at=body.at)
    return _carry_out(call, order)


def prune(call: Call) -> Reply:
    """Remove the keys that no token needs from the JWKS, of a frozen ring too."""
    return _carry_out(call, Prune(call.parameters["ring"]))


def destroy(call: Call) -> Reply:
    """Delete the private keys that are older than every key in use permanently."""
    return _carry_out(call, Destroy(call.parameters["ring"], call.body.reason))


def tick(call: Call) -> Reply:
    """Apply the changes of a ring that are due."""
    context = call.parts.keys.open(call.caller.actor, role="tick", looking=call.dry_run)
    result = tick_ring(context, call.parameters["ring"], dry_run=call.dry_run)
    return _done(call, result)


def activate(call: Call) -> Reply:
    """Activate a published key."""
    body: Activation = call.body
    kid = call.parameters["kid"]
    return _carry_out(call, Activate(kid, body.reason, at=body.at, emergency=body.emergency))


def taint(call: Call) -> Reply:
    """Stop a key from signing; its tokens are accepted until they expire."""
    return _carry_out(call, Taint(call.parameters["kid"], call.body.reason))


def revoke(call: Call) -> Reply:
    """Remove a key from the JWKS and refuse its tokens."""
    body: Revocation = call.body
    order = Revoke(call.parameters["kid"], body.reason, all_versions=body.all_versions)
    return _carry_out(call, order)


def _carry_out(call: Call, order: Order) -> Reply:
    context = call.parts.keys.open(call.caller.actor, looking=call.dry_run)
    result: OrderResult = apply_order(context, order, dry_run=call.dry_run, control=call.control)
    return _done(call, result)


def _done(call: Call, result: OrderResult) -> Reply:
    call.services.key_rings.refresh()
    return Reply(result, diff=result.changes)


def _ring(call: Call) -> RingSnapshot:
    return _find_ring(load_rings(call.services), call.parameters["ring"])


def _find_ring(rings: Iterable[RingSnapshot], name: str) -> RingSnapshot:
    for ring in rings:
        if ring.name == name:
            return ring
    raise NotFoundError(f"There is no key ring {name!r}.")
