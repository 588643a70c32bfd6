"""``keys rotate``, ``activate``, ``move``: who signs next."""

from datetime import datetime

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.composition import KeyOperations
from authz_server.cli.keys.naming import resolve_kid
from authz_server.cli.keys.options import TAKES_KEY_ID, order_options, reason_option, yes_option
from authz_server.cli.keys.outcomes import Addition, carry_out
from authz_server.cli.keys.readers import describe_readers, readers_in_words
from authz_server.cli.values import INSTANT
from authz_server.key_rings.standby import find_next_key
from keys.lifecycle.rotator import Outcome


@click.command("rotate", cls=Command)
@click.argument("ring", required=False)
@reason_option(default="rotation by order")
@yes_option
@order_options
@pass_invocation
def rotate(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    ring: str | None,
    reason: str,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Have a ring's backend make the next version.

    The present standby takes over as soon as verifiers surely know it; the new version stands by.
    Without RING, the default ring is rotated.
    """
    name = ring or invocation.settings().keys.default_ring
    carry_out(
        invocation,
        "rotate",
        lambda rotator, dry_run: rotator.rotate(
            name, actor=invocation.actor, reason=reason, dry_run=dry_run
        ),
        dry_run=dry_run,
        as_json=as_json,
        tell=_tell_readers,
        question="" if yes else f"Have a new key made for the ring {name}?",
    )


def _tell_readers(operations: KeyOperations, outcome: Outcome) -> Addition:
    ring = outcome.plan.ring
    key = find_next_key(ring, operations.now())
    record = describe_readers(operations.services, key)
    return Addition({"readers": record}, readers_in_words(record))


@click.command("activate", cls=Command, context_settings=TAKES_KEY_ID)
@click.argument("kid")
@click.option("--at", type=INSTANT, help="When it begins to sign; else now.")
@click.option(
    "--emergency", is_flag=True, help="Even before verifiers surely know it: some will refuse."
)
@reason_option()
@order_options
@pass_invocation
def activate(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    kid: str,
    at: datetime | None,
    emergency: bool,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let a published key sign, now or from a time on.

    KID is its id, the beginning of it, or a ring: then the key that stands by there.
    """
    kid = resolve_kid(invocation, kid, lambda ring: find_next_key(ring, ring.loaded_at))
    carry_out(
        invocation,
        "activate",
        lambda rotator, dry_run: rotator.activate(
            kid,
            actor=invocation.actor,
            reason=reason,
            at=at,
            emergency=emergency,
            dry_run=dry_run,
        ),
        dry_run=dry_run,
        as_json=as_json,
    )


@click.command("move", cls=Command)
@click.argument("ring")
@click.option("--to", "successor", required=True, help="The ring that is to sign instead.")
@click.option("--at", type=INSTANT, help="When; else as soon as verifiers surely know its key.")
@reason_option()
@order_options
@pass_invocation
def move(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    ring: str,
    successor: str,
    at: datetime | None,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let another ring sign in the place of RING.

    Another backend, Vault or algorithm is another ring: add it to the settings, `keys init` it, and
    move. What RING signed is accepted until it expires.
    """
    carry_out(
        invocation,
        "move",
        lambda rotator, dry_run: rotator.succeed(
            ring, successor, actor=invocation.actor, reason=reason, at=at, dry_run=dry_run
        ),
        dry_run=dry_run,
        as_json=as_json,
    )
