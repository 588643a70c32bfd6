"""``keys audit reconcile``: find uses of the keys by other programs."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, echo_lines, json_option, print_json
from authz_server.cli.plain_text import timestamp
from authz_server.cli.values import INSTANT
from authz_server.operations.keys.audit import (
    AuditResult,
    JudgedTime,
    reconcile_log,
    record_alarms,
)
from authz_server.settings import STREAMS, Settings
from keys.plurals import counted

UNACCOUNTED = 1
#: The limit of each printed list; JSON has more.
SHOWN = 20
_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@click.command(
    "reconcile",
    cls=Command,
    here="it reads the logs of the Vaults and the audit files there",
    example="authz-server keys audit reconcile --vault-log audit.log",
)
@click.option(
    "--vault-log",
    "logs",
    type=_FILE,
    multiple=True,
    required=True,
    help="A file of the Vault's audit log, oldest first. Repeatable.",
)
@click.option(
    "--records",
    type=_FILE,
    multiple=True,
    show_default="that of the settings",
    help="A file of audit records, for each node. Repeatable.",
)
@click.option(
    "--vault", "vault_name", show_default="the only one", help="The Vault that wrote the log."
)
@click.option("--since", type=INSTANT, help="Leave out calls before this time.")
@click.option(
    "--until",
    type=INSTANT,
    show_default="10 s ago: later calls may not be recorded yet",
    help="Leave out calls after this time.",
)
@json_option
@pass_invocation
def reconcile_(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    logs: tuple[Path, ...],
    records: tuple[Path, ...],
    vault_name: str | None,
    since: datetime | None,
    until: datetime | None,
    as_json: bool,
) -> None:
    """Compare a Vault's audit log with the audit records.

    A call that signed and is not recorded was made by another program, or its answer was lost and
    the call repeated: an alarm, and exit status 1. A call that exported the private key is an alarm
    too. Records without a call in the log are listed; the log is then incomplete.
    """
    settings = invocation.settings()
    result = reconcile_log(
        settings,
        _vault(settings, vault_name),
        logs=logs,
        records=records or _own_records(settings),
        since=since,
        until=until,
    )
    if result.is_alarming:
        with invocation.services() as services:
            record_alarms(services, result)
    if as_json:
        print_json(as_record(result))
    else:
        echo_lines(_lines(result))
    click.get_current_context().exit(UNACCOUNTED if result.is_alarming else 0)


def _vault(settings: Settings, name: str | None) -> str:
    vaults = settings.keys.vaults
    if name is None and len(vaults) == 1:
        return next(iter(vaults))
    if name is None or name not in vaults:
        known = ", ".join(vaults) or "none"
        raise click.ClickException(f"Name the --vault whose log it is; the settings have {known}.")
    return name


def _own_records(settings: Settings) -> tuple[Path, ...]:
    destination = settings.audit.destination
    if destination in STREAMS or not Path(destination).is_file():
        raise click.ClickException(
            "The settings name no file of audit records here: name them with --records."
        )
    return (Path(destination),)


def _lines(result: AuditResult) -> Iterator[str]:
    yield _judged_line(result.judged)
    yield (
        f"{counted(result.signatures, 'signature')} by {counted(result.calls, 'call')} in the log, "
        f"{result.recorded} in the audit records."
    )
    if result.log.unreadable:
        yield f"NOTE {counted(result.log.unreadable, 'line')} of the log cannot be read."
    for call in result.taken:
        yield f"ALARM the private key was exported: {call}"
    for call in result.unaccounted[:SHOWN]:
        whose = "a known identity" if call.identity_is_ours else "an unknown identity"
        yield f"ALARM unaccounted {call.request_id}: {call}, {whose}"
    if result.unaccounted_count > SHOWN:
        yield f"ALARM and {result.unaccounted_count - SHOWN} more that are unaccounted"
    for each in result.surplus[:SHOWN]:
        made = f"{each.request_id} made {counted(each.signatures, 'signature')}"
        yield f"NOTE {made}; {each.recorded} were issued"
    if result.unseen_count:
        unseen = counted(result.unseen_count, "record is", "records are")
        yield f"NOTE {unseen} not in the log: it is incomplete"
    for record in result.unseen[:SHOWN]:
        yield f"  {record.time}  {record.backend_request_id}  {record.kid}"
    if not result.is_alarming:
        yield "Every signature is accounted for."


def _judged_line(judged: JudgedTime) -> str:
    begins = f"from {timestamp(judged.since)} " if judged.since else ""
    seconds = judged.unjudged_seconds
    last = f"; the last {seconds} s are not judged" if seconds else ""
    left = f", {judged.left_out} calls in the log were left out" if judged.left_out else ""
    return f"Judged: {begins}to {timestamp(judged.until)}{last}{left}."


audit = add_all(
    Commands("audit", help="Compare audit records with those of the Vaults."),
    [reconcile_],
)
