"""``client secret`` and ``resource-server secret``: add, list and end secrets."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from authz_server.assembly import Services
from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import (
    echo_status,
    json_option,
    print_json,
    print_rows,
    timestamp,
)
from authz_server.cli.secret_files import (
    read_secret,
    require_new_file,
    secret_input_options,
    secret_output_option,
)
from authz_server.cli.values import INSTANT
from authz_server.clients.models import Kind
from authz_server.operations.client_secrets import (
    NewSecret,
    add_secret,
    end_secret,
    is_last_secret,
    list_secrets,
)
from authz_server.operations.private_files import write_private_file

_COLUMNS = {
    "id": "Id",
    "description": "Description",
    "works": "Works",
    "imported": "Imported",
    "created_at": "Created",
    "ends_at": "Ends",
    "last_used_at": "Last used",
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


def print_secret(
    record: dict[str, Any], secret: NewSecret, output: Path | None, *, as_json: bool
) -> None:
    """Print a new secret once, or write it to a file.

    Args:
        record: the other fields of the JSON.
        secret: the new secret.
        output: a new file for its value; None: print it.
        as_json: print JSON.
    """
    if output is not None and secret.value:
        write_private_file(output, secret.value.encode() + b"\n")
        record = {**record, "secret_file": str(output)}
    elif secret.value:
        record = {**record, "secret": secret.value}
    if as_json:
        print_json(record)
    elif "secret_file" in record:
        click.echo(f"The secret {secret.id} is in {output}.")
    elif secret.value:
        click.echo(f"Secret {secret.id}, shown this once:\n{secret.value}")
    else:
        click.echo(f"The imported secret is {secret.id}.")


def secret_group(noun: Noun) -> click.Group:
    """Return the group ``secret`` of a noun."""
    return add_all(
        Commands("secret", help=f"Add, list and end the secrets of a {noun.name}."),
        [_add(noun), _list(noun), _end(noun)],
    )


def _add(noun: Noun) -> click.Command:
    @click.command(
        "add",
        cls=Command,
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
        with invocation.services() as services:
            secret = add_secret(
                services,
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


def _list(noun: Noun) -> click.Command:
    @click.command(
        "list",
        cls=Command,
        help=f"""List the secrets of a {noun.name}.

        Ended secrets are listed too. The value of a secret is never shown again.
        """,
        example=f"authz-server {noun.command} secret list {noun.example}",
    )
    @click.argument("id")
    @json_option
    @pass_invocation
    def list_(invocation: Invocation, id: str, as_json: bool) -> None:  # noqa: A002
        with invocation.services() as services:
            secrets = list_secrets(services, id, kind=noun.kind)
        print_rows(secrets, _COLUMNS, as_json=as_json)

    return list_


def _end(noun: Noun) -> click.Command:
    @click.command(
        "end",
        cls=Command,
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
        with invocation.services() as services:
            last = is_last_secret(services, id, secret_id, kind=noun.kind, at=at)
            if last and not yes and sys.stdin.isatty():
                _confirm_last(noun, id, at)
            secret = end_secret(
                services, id, secret_id, kind=noun.kind, actor=invocation.actor, at=at
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
