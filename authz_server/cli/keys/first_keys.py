"""``keys init``: the first keys of rings that have none."""

from functools import partial
from typing import Any

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.composition import (
    KeyOperations,
    key_operations,
    require_steady_clock,
)
from authz_server.cli.keys.options import order_options
from authz_server.cli.output import print_json, timestamp
from authz_server.key_rings.backends import ring_definition
from keys.lifecycle.first_key import FIRST_VERSIONS, create_first_key


@click.command("init", cls=Command)
@click.argument("ring", required=False)
@order_options
@pass_invocation
def init(invocation: Invocation, ring: str | None, dry_run: bool, as_json: bool) -> None:
    """Make the first keys of RING, else of every ring in the settings that has none.

    The first signs at once; but where other rings have keys, which verifiers cache, it waits until
    they know it. The second stands by. Running it again is safe. What a backend holds already is
    taken over; for a ring with drive "follow" it has to be there.
    """
    with key_operations(invocation, "order", looking=dry_run) as operations:
        rings = operations.services.settings.keys.rings
        if ring is not None and ring not in rings:
            raise click.ClickException(f"There is no keys.rings.{ring} in the settings.")
        in_use = any(each.keys for each in operations.rings())
        records = [
            _make(operations, name, in_use=in_use, dry_run=dry_run)
            for name in ([ring] if ring is not None else rings)
        ]
    if as_json:
        print_json(records)
        return
    for record in records:
        click.echo("{ring}: {sentence}".format(**record))


def _make(operations: KeyOperations, name: str, *, in_use: bool, dry_run: bool) -> dict[str, Any]:
    """Make the first keys of one ring; return what was done."""
    services = operations.services
    definition = ring_definition(services.settings, name)
    may_create = services.settings.keys.rings[name].drive != "follow"
    backend = operations.backends[definition.backend_uri]
    held = {ring.name: ring for ring in operations.rings()}
    present = definition.name in held and bool(held[definition.name].keys)
    record = {
        "command": "init",
        "ring": definition.name,
        "algorithm": definition.alg,
        "backend": definition.backend_uri,
        "at": timestamp(operations.now()),
        "dry_run": dry_run,
        "written": False,
    }
    if present:
        return record | {"sentence": "has keys already."}
    if dry_run:
        versions = len(backend.view(definition.name).versions)
        made = max(FIRST_VERSIONS - versions, 0) if may_create else 0
        return record | {
            "sentence": f"{made} keys are to be made at {definition.backend_uri}; "
            f"{versions} are there."
        }
    written = create_first_key(
        services.key_store,
        backend,
        definition,
        clock=services.clock,
        actor=operations.actor,
        in_use=in_use,
        may_create=may_create,
        clock_tolerance_seconds=services.settings.keys.clock_tolerance_seconds,
        observer=operations.recorder,
        require_steady=partial(require_steady_clock, services),
    )
    sentence = "has its first keys." if written else "has keys already."
    return record | {"written": written, "sentence": sentence}
