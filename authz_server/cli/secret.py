"""``client secret`` and ``resource-server secret``: add, rotate, list and end secrets."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from authz_server.assembly import Services
from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, echo_status, json_option, print_rows
from authz_server.cli.plain_text import span, timestamp
from authz_server.cli.secret_files import (
    print_secret,
    read_secret,
    require_new_file,
    secret_input_options,
    secret_output_option,
)
from authz_server.cli.values import INSTANT, SPAN
from authz_server.clients.models import Kind
from authz_server.operations.client_secrets import (
    add_secret,
    end_secret,
    is_last_secret,
    list_secrets,
)
from authz_server.operations.client_views import SecretView
from authz_server.operations.due_secrets import list_due_secrets
from authz_server.operations.secret_rotation import rotate_secret

_COLUMNS = {
    "id": "Id",
    "description": "Description",
    "works": "Works",
    "imported": "Imported",
    "created_at": "Created",
    "ends_at": "Ends",
    "last_used_at": "Last used",
    "last_used_from": "From",
    "pepper_fingerprint": "Pepper",
}
_DUE_COLUMNS = {
    "id": "Id",
    "secret_id": "Secret",
    "description": "Description",
    "days_left": "Days left",
    "ends_at": "Ends",
    "last_used_at": "Last used",
    "last_used_from": "From",
    "replaced": "Replaced",
    "other_pepper": "Other pepper",
}


@dataclass(frozen=True, slots=True)
class Noun:
    """A client or a resource server, in the words of messages and commands.

    Attributes:
        name: the name in messages, such as ``resource server``.
        command: the name of the command, such as ``resource-server``.
        kind: the kind in operations.
        example: an id for examples.
        get: returns the view by id; NotFoundError if there is none.
    """

    name: str
    command: str
    kind: Kind
    example: str
    get: Callable[[Services, str], Any]


def secret_group(noun: Noun) -> click.Group:
    """Return the group ``secret`` of a noun."""
    return add_all(
        Commands("secret", help=f"Add, rotate and end the secrets of a {noun.name}."),
        [_add(noun), _rotate(noun), _list(noun), _due(noun), _end(noun)],
    )


def _add(noun: Noun) -> click.Command:
    @click.command(
        "add",
        cls=Command,
        remote=True,
        help=f"""Add a secret to a {noun.name}.

        The secret is generated and shown once, unless an option imports one. The other secrets
        keep working until they are ended.
        """,
        example=f"authz-server {noun.command} secret add {noun.example} --expires +90d",
    )
    @click.argument("id")
    @click.option("--description", default="", help="What the secret is for.")
    @click.option(
        "--expires",
        type=INSTANT,
        show_default="no end",
        help="When the secret stops working: a time, or a span such as +90d.",
    )
    @secret_input_options
    @secret_output_option
    @json_option
    @pass_invocation
    def add(  # noqa: PLR0913, PLR0917 - one for each option
        invocation: Invocation,
        /,
        id: str,  # noqa: A002
        description: str,
        expires: datetime | None,
        secret_output: Path | None,
        as_json: bool,
        **sources: Any,  # noqa: ANN401
    ) -> None:
        imported = read_secret(**sources)
        require_new_file(secret_output)
        with invocation.operations() as carry_out:
            secret = carry_out(
                add_secret,
                id,
                kind=noun.kind,
                actor=invocation.actor,
                description=description,
                expires_at=expires,
                imported=imported,
            )
        record = {"id": id, "secret_id": secret.id, "expires_at": timestamp(secret.expires_at)}
        print_secret(record, secret, secret_output, as_json=as_json)

    return add


def _rotate(noun: Noun) -> click.Command:
    @click.command(
        "rotate",
        cls=Command,
        remote=True,
        help=f"""Add a secret and plan the end of the others.

        The new secret is generated and shown once, unless an option imports one. The others keep
        working until --end-old-at, or until they have not been used for the time of
        --end-old-when-unused, whichever is first. That time begins at the last use, at the earliest
        with this command: choose more than the interval at which the {noun.name} sends requests.
        """,
        example=f"authz-server {noun.command} secret rotate {noun.example} "
        "--end-old-when-unused 7d",
    )
    @click.argument("id")
    @click.option(
        "--end-old-when-unused",
        type=SPAN,
        help="End each other secret when it has not been used for this time, such as 7d.",
    )
    @click.option(
        "--end-old-at",
        type=INSTANT,
        help="When the other secrets stop working: a time, or a span such as +24h.",
    )
    @click.option("--description", default="", help="What the new secret is for.")
    @click.option(
        "--expires",
        type=INSTANT,
        show_default="no end",
        help="When the new secret stops working: a time, or a span such as +90d.",
    )
    @secret_input_options
    @secret_output_option
    @json_option
    @pass_invocation
    def rotate(  # noqa: PLR0913, PLR0917 - one for each option
        invocation: Invocation,
        /,
        id: str,  # noqa: A002
        end_old_when_unused: timedelta | None,
        end_old_at: datetime | None,
        description: str,
        expires: datetime | None,
        secret_output: Path | None,
        as_json: bool,
        **sources: Any,  # noqa: ANN401
    ) -> None:
        if end_old_when_unused is None and end_old_at is None:
            raise click.UsageError("Give --end-old-when-unused or --end-old-at.")
        imported = read_secret(**sources)
        require_new_file(secret_output)
        with invocation.operations() as carry_out:
            rotated = carry_out(
                rotate_secret,
                id,
                kind=noun.kind,
                actor=invocation.actor,
                end_old_at=end_old_at,
                end_old_when_unused=end_old_when_unused,
                description=description,
                expires_at=expires,
                imported=imported,
            )
        new = rotated.new
        record = {
            "id": id,
            "secret_id": new.id,
            "expires_at": timestamp(new.expires_at),
            "old": list(map(as_record, rotated.old)),
        }
        print_secret(record, new, secret_output, as_json=as_json)
        if not as_json:
            for old in rotated.old:
                click.echo(f"The secret {old.id} ends {_describe_end(old)}.")

    return rotate


def _describe_end(secret: SecretView) -> str:
    ends = [f"at {timestamp(secret.ends_at)}"] if secret.ends_at else []
    if seconds := secret.ends_when_unused_seconds:
        ends.append(f"when it has not been used for {span(seconds)}")
    return " or ".join(ends)


def _due(noun: Noun) -> click.Command:
    @click.command(
        "due",
        cls=Command,
        remote=True,
        help=f"""List the secrets of all {noun.name}s that end soon.

        A secret is replaced if another one works longer, and it was not used since that one was
        added. A secret that was made with another pepper than that of the settings works no more,
        and is listed with any end, or none. The secrets of disabled and expired {noun.name}s are
        left out.
        """,
        example=f"authz-server {noun.command} secret due --within 30d",
    )
    @click.option(
        "--within",
        type=SPAN,
        default="30d",
        show_default=True,
        help="How soon they end, such as 30d.",
    )
    @json_option
    @pass_invocation
    def due(invocation: Invocation, within: timedelta, as_json: bool) -> None:
        with invocation.operations() as carry_out:
            secrets = carry_out(list_due_secrets, kind=noun.kind, within=within)
        print_rows(secrets, _DUE_COLUMNS, as_json=as_json)

    return due


def _list(noun: Noun) -> click.Command:
    @click.command(
        "list",
        cls=Command,
        remote=True,
        help=f"""List the secrets of a {noun.name}.

        Ended secrets are listed too. The value of a secret is never shown again. The fingerprint
        of the pepper is not known of a secret that an earlier release made and that was not used
        since.
        """,
        example=f"authz-server {noun.command} secret list {noun.example}",
    )
    @click.argument("id")
    @json_option
    @pass_invocation
    def list_(invocation: Invocation, id: str, as_json: bool) -> None:  # noqa: A002
        with invocation.operations() as carry_out:
            secrets = carry_out(list_secrets, id, kind=noun.kind)
        print_rows(secrets, _COLUMNS, as_json=as_json)

    return list_


def _end(noun: Noun) -> click.Command:
    @click.command(
        "end",
        cls=Command,
        remote=True,
        help=f"""End a secret of a {noun.name} permanently.

        SECRET_ID is its id in the list. A later time in --at leaves an overlap with the next
        secret. At a terminal, the command asks before it ends the last one.
        """,
        example=f"authz-server {noun.command} secret end {noun.example} SECRET_ID --at +24h",
    )
    @click.argument("id")
    @click.argument("secret_id")
    @click.option(
        "--at",
        type=INSTANT,
        show_default="now",
        help="When the secret stops working: a time, or a span such as +24h.",
    )
    @click.option("--yes", is_flag=True, help="Do not ask before the last secret ends.")
    @pass_invocation
    def end(
        invocation: Invocation,
        id: str,  # noqa: A002
        secret_id: str,
        at: datetime | None,
        yes: bool,
    ) -> None:
        with invocation.operations() as carry_out:
            asks = not yes and sys.stdin.isatty()
            if asks and carry_out(is_last_secret, id, secret_id, kind=noun.kind, at=at):
                _confirm_last(noun, id, at)
            secret = carry_out(
                end_secret, id, secret_id, kind=noun.kind, actor=invocation.actor, at=at
            )
        click.echo(f"The secret {secret_id} ends at {timestamp(secret.ends_at)}.")

    return end


def _confirm_last(noun: Noun, id: str, at: datetime | None) -> None:  # noqa: A002
    when = f"after {timestamp(at)}" if at else "immediately"
    effect = (
        f"its requests are refused with 401 {when}. Tokens that it holds are not affected."
        if noun.kind == "client"
        else f"its introspection is refused {when}."
    )
    echo_status(f"No other secret of the {noun.name} {id} works then: {effect}")
    click.confirm("End its last secret?", abort=True, err=True)
