"""``keys taint``, ``revoke``: a key that is not trusted any more."""

from typing import Any

import click

from authz_server.audit.sink import store_audit_record
from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.composition import KeyOperations
from authz_server.cli.keys.impact import describe_impact, impact_in_words, tokens_in_words
from authz_server.cli.keys.naming import resolve_kid
from authz_server.cli.keys.options import TAKES_KEY_ID, order_options, reason_option, yes_option
from authz_server.cli.keys.outcomes import Addition, carry_out
from authz_server.database.orm import transaction
from keys.lifecycle.rotator import Outcome
from keys.lifecycle.rules import PUBLIC_STATES, find_active_key
from keys.signing_key import RingSnapshot, SigningKey


@click.command("taint", cls=Command, context_settings=TAKES_KEY_ID)
@click.argument("kid")
@reason_option()
@yes_option
@order_options
@pass_invocation
def taint(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation, kid: str, reason: str, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Stop a key from signing; what it signed is accepted until it expires.

    KID is its id, the beginning of it, or a ring: then the key that signs there.
    """
    kid = resolve_kid(invocation, kid, signing_key)

    def tell(operations: KeyOperations, outcome: Outcome) -> Addition:
        impact = _impact_of(operations, outcome, kid)
        return Addition({"impact": impact}, tokens_in_words(impact))

    carry_out(
        invocation,
        "taint",
        lambda rotator, dry_run: rotator.taint(
            kid, actor=invocation.actor, reason=reason, dry_run=dry_run
        ),
        dry_run=dry_run,
        as_json=as_json,
        tell=tell,
        question="" if yes else f"Stop the key {kid} from signing?",
    )


@click.command("revoke", cls=Command, context_settings=TAKES_KEY_ID)
@click.argument("kid")
@click.option("--all-versions", is_flag=True, help="Every key of its ring; a new one is made.")
@reason_option()
@yes_option
@order_options
@pass_invocation
def revoke(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    kid: str,
    all_versions: bool,
    reason: str,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Withdraw a key at once: nothing that it signed is accepted any more.

    The standby signs, the backend is told to sign nothing older, the key leaves the JWKS, and
    introspection refuses its tokens. --dry-run says whom that concerns and who will not notice.
    KID is its id, the beginning of it, or a ring: then the key that signs there.
    """
    kid = resolve_kid(invocation, kid, signing_key)

    def tell(operations: KeyOperations, outcome: Outcome) -> Addition:
        if outcome.written:
            _record_seconds(operations, outcome, kid)
        impact = _impact_of(operations, outcome, kid, all_versions=all_versions)
        return Addition({"impact": impact}, impact_in_words(impact))

    carry_out(
        invocation,
        "revoke",
        lambda rotator, dry_run: rotator.revoke(
            kid,
            actor=invocation.actor,
            reason=reason,
            all_versions=all_versions,
            dry_run=dry_run,
        ),
        dry_run=dry_run,
        as_json=as_json,
        tell=tell,
        question="" if yes else f"Revoke the key {kid}?",
    )


def signing_key(ring: RingSnapshot) -> SigningKey | None:
    """Return the key that signs in a ring now."""
    return find_active_key(ring.keys, ring.loaded_at)


def _impact_of(
    operations: KeyOperations, outcome: Outcome, kid: str, *, all_versions: bool = False
) -> dict[str, Any]:
    ring = outcome.plan.ring
    concerned = [
        key for key in ring.keys if key.kid == kid or (all_versions and key.state in PUBLIC_STATES)
    ]
    return describe_impact(operations.services.settings, ring, concerned, operations.now())


def _record_seconds(operations: KeyOperations, outcome: Outcome, kid: str) -> None:
    """Keep how long each step took, for whoever asks after the emergency."""
    told = ", ".join(f"{step} after {took:.3f} s" for step, took in outcome.seconds.items())
    with transaction() as session:
        store_audit_record(
            session,
            at=operations.now(),
            actor=operations.actor,
            action="key.revocation_timed",
            subject=kid,
            ring=outcome.plan.ring.name,
            kid=kid,
            reason="; ".join([told, *outcome.failures]),
            event_hash="",
        )
