"""``keys drill``: an emergency revocation, rehearsed without effect."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.composition import key_operations, require_ring
from authz_server.cli.keys.rehearsal import describe_rehearsal, rehearse
from authz_server.cli.output import json_option, print_json

WOULD_FAIL = 1


@click.command("drill", cls=Command)
@click.argument("ring", required=False)
@json_option
@pass_invocation
def drill(invocation: Invocation, ring: str | None, as_json: bool) -> None:
    """Rehearse the revocation of the key that signs, of RING or of every ring.

    It reads, plans, has the standby sign a fixed text, asks for the right to fence, and makes the
    first write of the change in a transaction that it takes back. Nothing is changed. It says how
    long the real thing would take and what would fail; the exit status is 1 if anything would.
    """
    with key_operations(invocation, "order", looking=True) as operations:
        rings = [require_ring(operations, ring)] if ring else operations.rings()
        records = [
            describe_rehearsal(operations, rehearse(operations, each))
            for each in rings
            if ring or each.name in operations.services.settings.keys.rings
        ]
    if as_json:
        print_json(records)
    else:
        for line in (line for record in records for line in _lines(record)):
            click.echo(line)
    fails = any(record["would_fail"] for record in records)
    click.get_current_context().exit(WOULD_FAIL if fails else 0)


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    yield f"Drill for the ring {record['ring']}. Nothing was changed."
    if record["kid"]:
        yield f"  would be revoked: {record['kid']}"
        yield f"  would sign:       {record['standby'] or 'nothing'}"
    for step in record["steps"]:
        word = "ok" if step["works"] else "WOULD FAIL"
        detail = f", {step['detail']}" if step["detail"] else ""
        yield f"  {word:<10}  {step['step']:<22}  {step['seconds']:.3f} s{detail}"
    expected = record["expected"]
    revoked = expected["revoked_after_seconds"]
    everywhere = expected["every_node_refuses_after_seconds"]
    obedient = expected["obedient_verifiers_refuse_after_seconds"]
    yield "  To be expected from the order on:"
    yield f"    {revoked:.2f} s until the key is revoked"
    yield f"    {everywhere:.2f} s until every node signs with the standby and refuses the old key"
    yield f"    {obedient:.2f} s until verifiers that obey max-age refuse; others often after 24 h"
    for doubt in record["doubts"]:
        yield f"  NOTE {doubt}"
