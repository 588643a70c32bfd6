"""``revoke``: end many tokens at once, by client, key, scope or instant."""

from datetime import UTC, datetime, timedelta

import click
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import json_option, print_change, timestamp
from authz_server.cli.values import INSTANT_OR_NOW
from authz_server.database.orm import transaction
from authz_server.operations.key_names import find_kid
from authz_server.tokens.revocations import CutOffKind

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@click.command("revoke", cls=Command)
@click.option("--client", "client_id", help="Tokens of this client.")
@click.option("--key", "kid", help="Tokens signed with the key whose id begins so.")
@click.option("--scope", "scope_name", help="Tokens with this scope.")
@click.option(
    "--before",
    type=INSTANT_OR_NOW,
    help="Tokens issued up to this time; else up to now. Alone: every token issued until then.",
)
@click.option("--reason", default="", help="Why, for the record.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_invocation
def revoke(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    client_id: str | None,
    kid: str | None,
    scope_name: str | None,
    before: datetime | str | None,
    reason: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Revoke many tokens at once.

    Those of a client, a key or a scope, or every token issued up to a time. When the command
    returns, introspection on every node says so. Tokens issued later are not concerned: disable the
    client too if it should get none.
    """
    options: tuple[tuple[CutOffKind, str | None], ...] = (
        ("client", client_id),
        ("key", kid),
        ("scope", scope_name),
    )
    named = [(kind, subject) for kind, subject in options if subject is not None]
    if len(named) > 1 or not (named or before):
        raise click.UsageError("Name one of --client, --key, --scope, or a time with --before.")
    kind, subject = named[0] if named else ("all", "")
    # The database's clock says what is now, as it does for what is issued.
    until = before if isinstance(before, datetime) else None
    with invocation.services() as services:
        now = services.clock()
        if until is not None and until > now:
            raise click.UsageError(
                "--before lies in the future; only what is issued can be revoked."
            )
        with transaction() as session:
            subject = _known_subject(services, session, kind, subject)
        if not yes:
            click.confirm(_question(kind, subject, until), abort=True, err=True)
        with transaction() as session:
            instant = until or services.revocations.present(session)
            services.revocations.cut_off(
                session,
                kind=kind,
                subject=subject,
                instant_microseconds=(instant - _EPOCH) // timedelta(microseconds=1),
                actor=invocation.actor,
                reason=reason,
            )
    record = {"kind": kind, "subject": subject, "issued_up_to": timestamp(instant)}
    sentence = f"{_what(kind, subject)} issued up to {timestamp(instant)} are revoked."
    print_change(record, sentence, as_json=as_json)


def _known_subject(services: Services, session: Session, kind: str, subject: str) -> str:
    """Return the subject under its canonical name; refuse one that does not exist."""
    if kind == "client":
        return services.clients.get_client(session, subject).id
    if kind == "scope":
        return services.scopes.get_scope(session, subject).name
    if kind == "key":
        return find_kid(services.key_store.load_rings(services.clock()), subject)
    return subject


def _what(kind: str, subject: str) -> str:
    return "All tokens" if kind == "all" else f"All tokens of the {kind} {subject}"


def _question(kind: str, subject: str, before: datetime | None) -> str:
    until = f" up to {timestamp(before)}" if before else " until now"
    return f"Revoke {_what(kind, subject).lower()} issued{until}?"
