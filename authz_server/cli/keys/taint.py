"""``keys taint``: stop a key from signing; its tokens stay valid."""

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.context import resolve_kid
from authz_server.cli.keys.options import TAKES_KEY_ID, order_options, reason_option, yes_option
from authz_server.cli.keys.orders import carry_out
from keys.lifecycle.orders import Taint


@click.command(
    "taint",
    cls=Command,
    remote=True,
    context_settings=TAKES_KEY_ID,
    example='authz-server keys taint es256 --reason "a laptop was lost"',
)
@click.argument("kid")
@reason_option()
@yes_option
@order_options
@pass_invocation
def taint(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation, kid: str, reason: str, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Stop a key from signing; its tokens stay valid.

    Its tokens are accepted until they expire; then the key is revoked. KID is the key's id, the
    beginning of it, RING:VERSION, or a ring, which stands for the key that signs.
    """
    kid = resolve_kid(invocation, kid)
    question = "" if yes else f"Stop the key {kid} from signing?"
    carry_out(invocation, Taint(kid, reason), dry_run=dry_run, as_json=as_json, question=question)
