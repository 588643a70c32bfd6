"""``keys audit reconcile``: whether anybody else has used the keys."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import click

from authz_server.audit.sink import is_stream
from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.policy import places_in
from authz_server.cli.keys.reconciliation import Period, Reconciliation, reconcile
from authz_server.cli.output import json_option, print_json, timestamp
from authz_server.cli.values import INSTANT
from authz_server.key_rings.alarms import KeyObserver
from authz_server.settings import Settings
from keys.backends.vault.audit_log import AuditLogReader, KeyUse

UNACCOUNTED = 1
#: So many are shown to a person; JSON has more.
SHOWN = 20
IN_FLIGHT = timedelta(seconds=10)
_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@click.command("reconcile", cls=Command)
@click.option(
    "--vault-log",
    "logs",
    type=_FILE,
    multiple=True,
    required=True,
    help="A file of the Vault's audit log, oldest first; may be repeated.",
)
@click.option(
    "--records",
    type=_FILE,
    multiple=True,
    help="A file of our audit records, of each node; else that of the settings.",
)
@click.option("--vault", "vault_name", help="Whose log it is, where the settings have several.")
@click.option("--since", type=INSTANT, help="Leave out what was before this time.")
@click.option(
    "--until",
    type=INSTANT,
    help="Leave out what was from this time on; else the last 10 s, which may not be recorded yet.",
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
    """Match every signature in a Vault's audit log with what we issued.

    A call that signed and is not in our records was made by somebody else, or was lost on its way
    to us and made again: an alarm, and exit status 1. So is a call that took the private key. Our
    records without a call in the log are listed: then the log is not whole.
    """
    settings = invocation.settings()
    # What is being signed this moment is in the log before it is in our records.
    unjudged = timedelta(0) if until else IN_FLIGHT
    until = until or datetime.now(UTC) - IN_FLIGHT
    vault = _vault(settings, vault_name)
    places = {place for place in places_in(settings, vault).values() if place.scheme == "transit"}
    if not places:
        raise click.ClickException(f"No ring signs with transit in the Vault {vault}.")
    reader = AuditLogReader(frozenset(places), settings.keys.vaults[vault].namespace)
    period = Period(since, until)
    found = reconcile(reader, logs, records or _own_records(settings), period)
    begins_at = since or reader.first_at
    if begins_at is not None and begins_at >= until:
        begins_at = None  # the log begins later
    judged = _Judged(begins_at, until, unjudged, found.left_out)
    wrong = bool(found.unaccounted_count or found.taken)
    if wrong:
        _record_alarms(invocation, found)
    if as_json:
        print_json(_describe(vault, reader, found) | {"judged": judged.describe()})
    else:
        click.echo(judged.sentence())
        for line in _lines(reader, found):
            click.echo(line)
    click.get_current_context().exit(UNACCOUNTED if wrong else 0)


class _Judged(NamedTuple):
    """The time that was judged, and the calls in the log that were not."""

    since: datetime | None
    until: datetime
    unjudged: timedelta
    left_out: int

    def describe(self) -> dict[str, Any]:
        return {
            "since": timestamp(self.since),
            "until": timestamp(self.until),
            "unjudged_seconds": int(self.unjudged.total_seconds()),
            "left_out": self.left_out,
        }

    def sentence(self) -> str:
        begins = f"from {timestamp(self.since)} " if self.since else ""
        seconds = int(self.unjudged.total_seconds())
        last = f"; the last {seconds} s are not judged" if seconds else ""
        left = f", {self.left_out} calls in the log were left out" if self.left_out else ""
        return f"Judged: {begins}to {timestamp(self.until)}{last}{left}."


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
    if is_stream(destination) or not Path(destination).is_file():
        raise click.ClickException(
            "The settings name no file of audit records here: name them with --records."
        )
    return (Path(destination),)


def _record_alarms(invocation: Invocation, found: Reconciliation) -> None:
    with invocation.services() as services:
        observer = KeyObserver(services.record)
        for use in found.taken:
            observer.alarm("key.taken", use.path, _in_words(use))
        for use in found.unaccounted:
            observer.alarm("signature.unaccounted", use.request_id, _in_words(use))


def _in_words(use: KeyUse) -> str:
    return (
        f"{timestamp(use.at)}, {use.signatures} at {use.path}, by {use.identity} "
        f"from {use.remote_address}"
    )


def _describe(vault: str, reader: AuditLogReader, found: Reconciliation) -> dict[str, Any]:
    return {
        "vault": vault,
        "log": {
            "entries": reader.entries,
            "unreadable": reader.unreadable,
            "since": timestamp(reader.first_at),
            "until": timestamp(reader.last_at),
        },
        "calls": found.calls,
        "signatures": found.signatures,
        "recorded": found.recorded,
        "unaccounted_count": found.unaccounted_count,
        "unaccounted": [_describe_use(use, found) for use in found.unaccounted],
        "surplus": [
            _describe_use(use, found) | {"recorded": recorded} for use, recorded in found.surplus
        ],
        "taken": [_describe_use(use, found) for use in found.taken],
        "unseen_count": found.unseen_count,
        "unseen": [
            {"backend_request_id": request_id, "kid": kid, "time": at}
            for request_id, kid, at in found.unseen
        ],
    }


def _describe_use(use: KeyUse, found: Reconciliation) -> dict[str, Any]:
    return {
        "request_id": use.request_id,
        "at": timestamp(use.at),
        "path": use.path,
        "signatures": use.signatures,
        "identity": use.identity,
        "identity_is_ours": found.identities[use.identity] > 0,
        "remote_address": use.remote_address,
    }


def _lines(reader: AuditLogReader, found: Reconciliation) -> Iterator[str]:
    yield (
        f"{found.signatures} signatures by {found.calls} calls in the log, "
        f"{found.recorded} in our records."
    )
    if reader.unreadable:
        yield f"NOTE {reader.unreadable} lines of the log cannot be read."
    for use in found.taken:
        yield f"ALARM the private key was taken: {_in_words(use)}"
    for use in found.unaccounted[:SHOWN]:
        whose = "as ours are" if found.identities[use.identity] else "as none of ours are"
        yield f"ALARM unaccounted {use.request_id}: {_in_words(use)}, {whose}"
    if found.unaccounted_count > SHOWN:
        yield f"ALARM and {found.unaccounted_count - SHOWN} more that are unaccounted"
    for use, recorded in found.surplus[:SHOWN]:
        yield f"NOTE {use.request_id} made {use.signatures} signatures; {recorded} were issued"
    if found.unseen_count:
        yield f"NOTE {found.unseen_count} records are not in the log: it is not whole"
    for request_id, kid, at in found.unseen[:SHOWN]:
        yield f"  {at}  {request_id}  {kid}"
    if not (found.unaccounted_count or found.taken):
        yield "Every signature is accounted for."


audit = add_all(
    Commands("audit", help="The records of signatures."),
    [reconcile_],
)
