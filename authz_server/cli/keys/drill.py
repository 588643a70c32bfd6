"""``keys drill``: rehearse an emergency revocation."""

from collections.abc import Iterator

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.context import key_context
from authz_server.cli.output import as_record, echo_lines, json_option, print_json
from authz_server.operations.keys.drill import Drill, run_drill

WOULD_FAIL = 1


@click.command(
    "drill",
    cls=Command,
    here="it tries the backends with the logins that are there",
    example="authz-server keys drill es256",
)
@click.argument("ring", required=False)
@json_option
@pass_invocation
def drill(invocation: Invocation, ring: str | None, as_json: bool) -> None:
    """Rehearse an emergency revocation.

    It rehearses it for the key that signs in RING, or in every ring: it reads, plans, signs a
    fixed text with the standby, checks the right to fence, and makes the first write of the change
    in a transaction that is rolled back. Nothing is changed. It prints how long the real
    revocation would take and what would fail; the exit status is 1 if anything would.
    """
    with key_context(invocation, "order", looking=True) as context:
        rings = [context.get_ring(ring)] if ring else context.rings()
        drills = [
            run_drill(context, each)
            for each in rings
            if ring or each.name in context.settings.keys.rings
        ]
    if as_json:
        print_json([as_record(each) for each in drills])
    else:
        echo_lines(line for each in drills for line in _lines(each))
    fails = any(each.would_fail for each in drills)
    click.get_current_context().exit(WOULD_FAIL if fails else 0)


def _lines(drill: Drill) -> Iterator[str]:
    yield f"Drill for the ring {drill.ring}. Nothing was changed."
    if drill.kid:
        yield f"  would be revoked: {drill.kid}"
        yield f"  would sign:       {drill.standby or 'nothing'}"
    for step in drill.steps:
        word = "ok" if step.works else "WOULD FAIL"
        detail = f", {step.detail}" if step.detail else ""
        yield f"  {word:<10}  {step.step:<22}  {step.seconds:.3f} s{detail}"
    revoked = drill.expected.revoked_after_seconds
    everywhere = drill.expected.every_node_refuses_after_seconds
    obedient = drill.expected.obedient_verifiers_refuse_after_seconds
    yield "  Expected times after the order:"
    yield f"    {revoked:.2f} s until the key is revoked"
    yield f"    {everywhere:.2f} s until every node signs with the standby and refuses the old key"
    yield f"    {obedient:.2f} s until verifiers that obey max-age refuse; others often after 24 h"
    for doubt in drill.doubts:
        yield f"  NOTE {doubt}"
