"""``keys revoke``: withdraw a key and refuse its tokens."""

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.context import resolve_kid
from authz_server.cli.keys.options import TAKES_KEY_ID, order_options, reason_option, yes_option
from authz_server.cli.keys.orders import carry_out
from keys.lifecycle.orders import Revoke


@click.command(
    "revoke",
    cls=Command,
    remote=True,
    context_settings=TAKES_KEY_ID,
    example='authz-server keys revoke es256 --reason "the key leaked" --dry-run',
)
@click.argument("kid")
@click.option(
    "--all-versions", is_flag=True, help="Revoke every key of its ring; a new one is made."
)
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
    """Withdraw a key and refuse its tokens.

    The standby signs at once, the backend is ordered to sign nothing older, the key leaves the
    JWKS, and introspection refuses its tokens. --dry-run shows the tokens and clients that this
    affects, and the verifiers that will not notice. KID is the key's id, the beginning of it,
    RING:VERSION, or a ring, which stands for the key that signs.
    """
    kid = resolve_kid(invocation, kid)
    order = Revoke(kid, reason, all_versions=all_versions)
    question = "" if yes else f"Revoke the key {kid}?"
    carry_out(invocation, order, dry_run=dry_run, as_json=as_json, question=question)
