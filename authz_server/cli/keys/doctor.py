"""``keys doctor``: whether the keys are safe, shown against what is there."""

from collections import Counter

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.composition import KeyOperations, key_operations
from authz_server.cli.keys.local_checks import examine_installation
from authz_server.cli.keys.vault_checks import examine_vaults
from authz_server.cli.output import json_option, print_json, timestamp
from authz_server.key_rings.alarms import KeyObserver
from keys.backends.vault.doctor import Finding, Level

UNSAFE = 1
ALARMS = frozenset({"privilege.too_wide", "key.exportable", "events.chain"})


@click.command("doctor", cls=Command)
@json_option
@pass_invocation
def doctor(invocation: Invocation, as_json: bool) -> None:
    """Examine rings, clock, events and the Vaults; say what is unsafe.

    In each Vault it logs in as the server (and as the rotator), shows that the token can do what it
    needs and cannot rotate, configure, export, back up, delete or use other keys, and has the key
    that signs now sign a fixed text. Nothing is changed. The exit status is 1 if anything is
    unsafe.
    """
    with key_operations(invocation, "tick", looking=True) as operations:
        findings = [*examine_installation(operations), *examine_vaults(operations)]
        at = timestamp(operations.now())
        _record_alarms(operations, findings)
    failed = any(finding.level is Level.FAILURE for finding in findings)
    if as_json:
        shown = [
            {
                "level": finding.level.value,
                "check": finding.check,
                "subject": finding.subject,
                "detail": finding.detail,
            }
            for finding in findings
        ]
        print_json({"at": at, "safe": not failed, "findings": shown})
    else:
        _print(findings)
    click.get_current_context().exit(UNSAFE if failed else 0)


def _record_alarms(operations: KeyOperations, findings: list[Finding]) -> None:
    """Have the worst recorded, for whoever watches the records and not this command."""
    observer = KeyObserver(operations.services.record)
    for finding in findings:
        if finding.level is Level.FAILURE and finding.check in ALARMS:
            observer.alarm(finding.check, finding.subject, finding.detail)


def _print(findings: list[Finding]) -> None:
    for finding in findings:
        word = finding.level.value.upper() if finding.level is not Level.OK else "ok"
        click.echo(f"{word:<8} {finding.check:<24} {finding.subject}")
        click.echo(f"{'':<8} {finding.detail}")
    counts = Counter(finding.level for finding in findings)
    told = ", ".join(f"{counts[level]} {level}" for level in Level if counts[level])
    click.echo(f"\n{told or 'Nothing was examined.'}")
