"""``keys prune``: remove keys that no token needs from the JWKS."""

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.context import key_operations
from authz_server.cli.keys.options import order_options
from authz_server.cli.keys.orders import print_result
from authz_server.cli.output import as_record, print_json
from authz_server.operations.keys.orders import apply_order, name_rings
from keys.lifecycle.orders import Prune


@click.command("prune", cls=Command, remote=True, example="authz-server keys prune --dry-run")
@click.argument("ring", required=False)
@order_options
@pass_invocation
def prune(invocation: Invocation, ring: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove keys that no token needs from the JWKS.

    They are the keys whose last token has expired, of RING, or of every ring, frozen ones too. With
    --json, it prints a list with one result for each ring.
    """
    with key_operations(invocation, "order", looking=dry_run) as carry_out:
        names = carry_out(name_rings, ring or None)
        results = [carry_out(apply_order, Prune(each), dry_run=dry_run) for each in names]
    if as_json:
        print_json([as_record(result) for result in results])
    statuses = [print_result(result, as_json=as_json) for result in results]
    click.get_current_context().exit(max(statuses, default=0))
