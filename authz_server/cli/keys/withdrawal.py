"""``keys taint``, ``revoke``: a key that is not trusted any more."""

import click

from authz_server.audit import store_audit_record
from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation
from authz_server.cli.keys.composition import KeyOperations
from authz_server.cli.keys.impact import describe_impact, impact_in_words
from authz_server.cli.keys.options import TAKES_KEY_ID, order_options, reason_option
from authz_server.cli.keys.outcomes import Addition, carry_out
from authz_server.cli.parties import pass_invocation
from authz_server.db import transaction
from keys.rotation import PUBLIC_STATES
from keys.rotator import Outcome


@click.command("taint", cls=Command, context_settings=TAKES_KEY_ID)
@click.argument("kid")
@reason_option()
@order_options
@pass_invocation
def taint(invocation: Invocation, kid: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Stop a key from signing; what it signed is accepted until it expires."""
    carry_out(
        invocation,
        "taint",
        lambda rotator: rotator.taint(kid, actor=invocation.actor, reason=reason, dry_run=dry_run),
        dry_run=dry_run,
        as_json=as_json,
    )


@click.command("revoke", cls=Command, context_settings=TAKES_KEY_ID)
@click.argument("kid")
@click.option("--all-versions", is_flag=True, help="Every key of its ring; a new one is made.")
@reason_option()
@order_options
@pass_invocation
def revoke(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    kid: str,
    all_versions: bool,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Withdraw a key at once: nothing that it signed is accepted any more.

    The standby signs, the backend is told to sign nothing older, the key leaves the JWKS, and
    introspection refuses its tokens. --dry-run says whom that concerns and who will not notice.
    """

    def tell(operations: KeyOperations, outcome: Outcome) -> Addition:
        return _tell_impact(operations, outcome, kid, all_versions=all_versions, dry_run=dry_run)

    carry_out(
        invocation,
        "revoke",
        lambda rotator: rotator.revoke(
            kid,
            actor=invocation.actor,
            reason=reason,
            all_versions=all_versions,
            dry_run=dry_run,
        ),
        dry_run=dry_run,
        as_json=as_json,
        tell=tell,
    )


def _tell_impact(
    operations: KeyOperations, outcome: Outcome, kid: str, *, all_versions: bool, dry_run: bool
) -> Addition:
    services, ring = operations.services, outcome.plan.ring
    if not dry_run:
        _record_seconds(operations, outcome, kid)
    concerned = [
        key for key in ring.keys if key.kid == kid or (all_versions and key.state in PUBLIC_STATES)
    ]
    impact = describe_impact(services.settings, ring, concerned, operations.now())
    return Addition({"impact": impact}, impact_in_words(impact))


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
