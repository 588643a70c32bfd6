"""``keys doctor``: examine rings, clock, events and the Vaults."""

from collections import Counter
from collections.abc import Iterator, Sequence

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.context import key_context
from authz_server.cli.output import as_record, echo_lines, json_option, print_json
from authz_server.operations.keys.doctor import examine
from keys.backends.vault.doctor import Finding, Level

UNSAFE = 1


@click.command(
    "doctor",
    cls=Command,
    here="it examines the clock, the files and the way to the Vaults there",
    example="authz-server keys doctor",
)
@json_option
@pass_invocation
def doctor(invocation: Invocation, as_json: bool) -> None:
    """Examine rings, clock, events and the Vaults.

    In each Vault it logs in as the server (and as the rotator), shows that the token can do what
    it needs and cannot rotate, configure, export, back up, delete or use other keys, and signs a
    fixed text with the key that signs now. Nothing is changed. The exit status is 1 if anything is
    unsafe.
    """
    with key_context(invocation, "tick", looking=True) as context:
        examination = examine(context)
    if as_json:
        print_json(as_record(examination))
    else:
        echo_lines(_lines(examination.findings))
    click.get_current_context().exit(0 if examination.safe else UNSAFE)


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        word = finding.level.value.upper() if finding.level is not Level.OK else "ok"
        yield f"{word:<8} {finding.check:<24} {finding.subject}"
        yield f"{'':<8} {finding.detail}"
    counts = Counter(finding.level for finding in findings)
    summary = ", ".join(f"{counts[level]} {level}" for level in Level if counts[level])
    yield f"\n{summary or 'Nothing was examined.'}"
