"""Execute orders on key rings, and tick them."""

from authz_server.audit.sink import store_audit_record
from authz_server.key_rings.standby import find_next_key
from authz_server.operations.keys.affected_tokens import AffectedTokens, find_affected_tokens
from authz_server.operations.keys.consumers import count_consumers
from authz_server.operations.keys.context import KeyContext
from authz_server.operations.keys.results import (
    OrderResult,
    RotationResult,
    WithdrawalResult,
    result_fields,
)
from keys.lifecycle.orders import Order, Revoke, Rotate, Taint
from keys.lifecycle.rotator import Outcome
from keys.lifecycle.rules import PUBLIC_STATES


def apply_order(context: KeyContext, order: Order, *, dry_run: bool = False) -> OrderResult:
    """Execute an order, or only plan it.

    Args:
        context: the context of the operation.
        order: the order; a rotation returns a RotationResult, a taint or a revocation a
            WithdrawalResult.
        dry_run: only plan.

    Raises:
        KeysError: the order was refused, or it failed without a change.
    """
    outcome = context.rotator.apply(order, actor=context.actor, dry_run=dry_run)
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


def tick_ring(context: KeyContext, ring: str, *, dry_run: bool = False) -> OrderResult:
    """Apply the changes of one ring that are due, or only plan them.

    Raises:
        KeysError: the tick failed.
    """
    context.notices.clear()
    outcome = context.rotator.tick(ring, actor=context.actor, dry_run=dry_run)
    return OrderResult(**result_fields(context, "tick", outcome, dry_run=dry_run))


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
