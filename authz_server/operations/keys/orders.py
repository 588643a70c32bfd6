"""Execute orders on key rings, and tick them."""

from collections.abc import Mapping
from dataclasses import asdict

from authz_server.audit.records import store_audit_record
from authz_server.key_rings.standby import find_next_key
from authz_server.operations.approvals import Control, NotedAct, find_required, store_done
from authz_server.operations.keys.affected_tokens import AffectedTokens, find_affected_tokens
from authz_server.operations.keys.consumers import count_consumers
from authz_server.operations.keys.context import KeyContext
from authz_server.operations.keys.list import describe_ring
from authz_server.operations.keys.results import (
    OrderResult,
    RotationResult,
    WithdrawalResult,
    result_fields,
)
from authz_server.operations.views import revision_of
from authz_server.settings.approvals import ACTIVATE_KEY, DESTROY_KEYS, REVOKE_KEY, Act
from keys.backend import Abandons
from keys.errors import OrderRefusedError
from keys.lifecycle.orders import Activate, Destroy, Order, Revoke, Rotate, Taint
from keys.lifecycle.rotator import Outcome
from keys.lifecycle.rules import PUBLIC_STATES
from keys.signing_key import RingSnapshot

#: The acts of the orders that may need a second person.
_ACTS: Mapping[type[Activate | Revoke | Destroy], Act] = {
    Activate: ACTIVATE_KEY,
    Revoke: REVOKE_KEY,
    Destroy: DESTROY_KEYS,
}


def apply_order(
    context: KeyContext,
    order: Order,
    *,
    dry_run: bool = False,
    abandon: bool = False,
    control: Control | None = None,
) -> OrderResult:
    """Execute an order, or only plan it.

    An order that waits for a second person is only planned, and noted in ``control``.

    Args:
        context: the context of the operation.
        order: the order; a rotation returns a RotationResult, a taint or a revocation a
            WithdrawalResult.
        dry_run: only plan.
        abandon: for a rotation: whether the key-encryption key of the older versions is lost.
        control: decides on acts that need a second person; None: a command on the server.

    Raises:
        KeysError: the order was refused, or it failed without a change.
        StaleChangeError: an approved change rests on another state of the ring.
    """
    noted = _find_act(context, order)
    if noted is not None and control is not None:
        control.note(noted)
        dry_run = dry_run or control.holds_back(noted)
    if abandon and isinstance(order, Rotate):
        _abandon(context, order.ring)
    outcome = context.rotator.apply(order, actor=context.actor, dry_run=dry_run)
    if noted is not None and control is None and outcome.written:
        with context.services.transaction() as session:
            store_done(context.services, session, noted)
    return _describe(context, order, outcome, dry_run=dry_run)


def _describe(context: KeyContext, order: Order, outcome: Outcome, *, dry_run: bool) -> OrderResult:
    fields = result_fields(context, type(order).__name__.lower(), outcome, dry_run=dry_run)
    match order:
        case Rotate():
            key = find_next_key(outcome.plan.ring, context.now())
            return RotationResult(**fields, readers=count_consumers(context.services, key))
        case Taint() | Revoke():
            if isinstance(order, Revoke) and outcome.written:
                _record_seconds(context, outcome, order.kid)
            return WithdrawalResult(**fields, impact=_find_impact(context, outcome, order))
    return OrderResult(**fields)


def _abandon(context: KeyContext, name: str) -> None:
    backend: object = context.backends.get(context.get_ring(name).backend_uri)
    if not isinstance(backend, Abandons):
        raise OrderRefusedError(f"{name}: no key-encryption key encrypts its keys")
    backend.abandon(name)


def name_rings(context: KeyContext, ring: str | None = None) -> tuple[str, ...]:
    """Return the names of the rings, or of one.

    Args:
        context: the context of the operation.
        ring: the name of the only ring; None: all.

    Raises:
        OrderRefusedError: there is no such ring.
    """
    if ring is not None:
        return (context.get_ring(ring).name,)
    return tuple(each.name for each in context.rings())


def tick_ring(context: KeyContext, ring: str, *, dry_run: bool = False) -> OrderResult:
    """Apply the changes of one ring that are due, or only plan them.

    Raises:
        KeysError: the tick failed.
    """
    context.notices.clear()
    outcome = context.rotator.tick(ring, actor=context.actor, dry_run=dry_run)
    return OrderResult(**result_fields(context, "tick", outcome, dry_run=dry_run))


def _find_act(context: KeyContext, order: Order) -> NotedAct | None:
    """Return what an order is that needs a second person; its diff is that of its result."""
    watched = context.services.settings.approvals.acts
    if not watched or not isinstance(order, Activate | Revoke | Destroy):
        return None
    name = type(order).__name__.lower()
    kind, subject = ("ring", order.ring) if isinstance(order, Destroy) else ("key", order.kid)
    ring = next((ring for ring in context.rings() if _concerns(order, ring)), None)
    act = NotedAct(
        acts=(_ACTS[type(order)],),
        actor=context.actor,
        operation=f"keys.{name}",
        arguments=asdict(order),
        subject=f"{kind}:{subject}",
        basis="" if ring is None else revision_of(describe_ring(ring)),
        diff={kind: {"before": None, "after": f"{name} {subject}"}},
        reason=order.reason,
    )
    return find_required(context.services, act)


def _concerns(order: Activate | Revoke | Destroy, ring: RingSnapshot) -> bool:
    if isinstance(order, Destroy):
        return order.ring == ring.name
    return any(key.kid == order.kid for key in ring.keys)


def _find_impact(context: KeyContext, outcome: Outcome, order: Taint | Revoke) -> AffectedTokens:
    ring = outcome.plan.ring
    everything = isinstance(order, Revoke) and order.all_versions
    concerned = [
        key
        for key in ring.keys
        if key.kid == order.kid or (everything and key.state in PUBLIC_STATES)
    ]
    return find_affected_tokens(context.settings, ring, concerned, context.now())


def _record_seconds(context: KeyContext, outcome: Outcome, kid: str) -> None:
    """Record the duration of each step, for the review after the emergency."""
    steps = ", ".join(f"{step} after {took:.3f} s" for step, took in outcome.seconds.items())
    with context.services.transaction() as session:
        store_audit_record(
            session,
            at=context.now(),
            actor=context.actor,
            action="key.revocation_timed",
            subject=kid,
            ring=outcome.plan.ring.name,
            kid=kid,
            reason="; ".join([steps, *outcome.failures]),
            event_hash="",
        )
