"""``revoke``: revoke many tokens at once, by client, key, scope or time."""

from datetime import datetime

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, json_option, print_change
from authz_server.cli.plain_text import timestamp
from authz_server.cli.values import INSTANT_OR_NOW
from authz_server.errors import InvalidChangeError
from authz_server.operations.revocation import CutOff, plan_cut_off, revoke_tokens
from authz_server.tokens.revocations import CutOffKind


@click.command(
    "revoke",
    cls=Command,
    remote=True,
    example='authz-server revoke --client ministry --reason "secret leaked" --yes',
)
@click.option("--client", "client_id", help="Revoke the tokens of this client.")
@click.option(
    "--key",
    "kid",
    help="Revoke the tokens signed with this key, by the beginning of its id or RING:VERSION.",
)
@click.option("--scope", "scope_name", help="Revoke the tokens with this scope.")
@click.option(
    "--before",
    type=INSTANT_OR_NOW,
    show_default="now",
    help="Revoke what was issued up to this time. Alone: every token issued until then.",
)
@click.option("--reason", default="", help="The reason, for the audit record.")
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
    returns, introspection on every node answers that they are inactive. Tokens issued later are
    not affected: disable the client too if it should get none.
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
    until = before if isinstance(before, datetime) else None
    with invocation.operations() as carry_out:
        try:
            planned = carry_out(plan_cut_off, kind, subject, before=until)
        except InvalidChangeError as error:
            raise click.UsageError(str(error)) from error
        if not yes:
            click.confirm(_question(planned), abort=True, err=True)
        done = carry_out(
            revoke_tokens,
            kind,
            planned.subject,
            actor=invocation.actor,
            before=until,
            reason=reason,
        )
    sentence = f"{_tokens_of(done)} issued up to {timestamp(done.issued_up_to)} are revoked."
    print_change(as_record(done), sentence, as_json=as_json)


def _tokens_of(cut_off: CutOff) -> str:
    if cut_off.kind == "all":
        return "All tokens"
    return f"All tokens of the {cut_off.kind} {cut_off.subject}"


def _question(planned: CutOff) -> str:
    until = f"up to {timestamp(planned.issued_up_to)}" if planned.issued_up_to else "until now"
    return f"Revoke {_tokens_of(planned).lower()} issued {until}?"
