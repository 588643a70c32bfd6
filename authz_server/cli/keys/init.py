"""``keys init``: make the first keys of rings that have none."""

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.context import key_context
from authz_server.cli.keys.options import order_options
from authz_server.cli.output import as_record, print_json
from authz_server.operations.keys.first_keys import create_first_keys


@click.command(
    "init",
    cls=Command,
    here="a ring without keys is made by the settings file",
    example="authz-server keys init",
)
@click.argument("ring", required=False)
@order_options
@pass_invocation
def init(invocation: Invocation, ring: str | None, dry_run: bool, as_json: bool) -> None:
    """Make the first keys of rings that have none.

    The rings are RING, or all of the settings. The first key signs at once; where other rings have
    keys, which verifiers cache, it waits until they know it. The second is the standby. Running it
    again is safe. Versions that a backend holds already are adopted; a ring with drive "follow"
    needs them there.
    """
    with key_context(invocation, "order", looking=dry_run) as context:
        if ring is not None and ring not in context.settings.keys.rings:
            raise click.ClickException(f"There is no keys.rings.{ring} in the settings.")
        results = create_first_keys(context, ring, dry_run=dry_run)
    if as_json:
        print_json([as_record(result) for result in results])
        return
    for result in results:
        click.echo(f"{result.ring}: {result.sentence}")
