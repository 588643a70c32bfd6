"""``registration-token``: permit clients to register themselves."""

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, json_option, print_json, print_rows
from authz_server.cli.plain_text import timestamp
from authz_server.cli.secret_files import require_new_file
from authz_server.cli.values import INSTANT
from authz_server.clients.validation import DEFAULT_GRANT_TYPES
from authz_server.operations.private_files import write_private_file
from authz_server.operations.registration_tokens import (
    create_registration_token,
    end_registration_token,
    list_registration_tokens,
)

_COLUMNS = {
    "id": "Id",
    "description": "Description",
    "organisation": "Organisation",
    "works": "Works",
    "uses_left": "Uses left",
    "ends_at": "Ends",
    "last_used_at": "Last used",
    "pepper_fingerprint": "Pepper",
    "scopes": "Scopes",
}


@click.command(
    "create",
    cls=Command,
    remote=True,
    example="authz-server registration-token create --scope 'mapper/*' \\\n"
    "    --uses 5 --expires +7d",
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="A scope that a client may register, in any spelling; mapper/* stands for all below. "
    "Without one, clients get no scope. Repeatable.",
)
@click.option(
    "--grant-type",
    "grant_types",
    multiple=True,
    default=DEFAULT_GRANT_TYPES,
    show_default=True,
    help="A grant type that a client may register. Repeatable.",
)
@click.option("--organisation", default="", help="The organisation of the clients.")
@click.option("--description", default="", help="What the token is for.")
@click.option(
    "--uses",
    type=int,
    default=1,
    show_default=True,
    help="The number of clients that may register with it.",
)
@click.option(
    "--expires",
    "expires_at",
    type=INSTANT,
    default="+1d",
    show_default=True,
    help="When the token stops working: a time, or a span such as +7d.",
)
@click.option(
    "--token-output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the token to this new file (0600) instead of printing it.",
)
@json_option
@pass_invocation
def create(
    invocation: Invocation,
    /,
    expires_at: datetime,
    token_output: Path | None,
    as_json: bool,
    **values: Any,  # noqa: ANN401
) -> None:
    """Create an initial access token.

    A client registers with it at /oauth2/register, for at most the scopes and grant types named
    here. The token is shown once.
    """
    require_new_file(token_output)
    with invocation.operations() as carry_out:
        created = carry_out(
            create_registration_token, actor=invocation.actor, expires_at=expires_at, **values
        )
    record = {**as_record(created.view)}
    if token_output is not None:
        write_private_file(token_output, created.value.encode() + b"\n")
        record["token_file"] = str(token_output)
    else:
        record["token"] = created.value
    if as_json:
        print_json(record)
    elif token_output is not None:
        click.echo(f"The initial access token {created.view.id} is in {token_output}.")
    else:
        click.echo(
            f"Initial access token {created.view.id}, until {timestamp(created.view.ends_at)}, "
            f"shown this once:\n{created.value}"
        )


@click.command("list", cls=Command, remote=True, example="authz-server registration-token list")
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the initial access tokens.

    Tokens that have ended are listed too; the values of tokens are not.
    """
    with invocation.operations() as carry_out:
        tokens = carry_out(list_registration_tokens)
    print_rows(tokens, _COLUMNS, as_json=as_json)


@click.command("end", cls=Command, remote=True, example="authz-server registration-token end ID")
@click.argument("id")
@pass_invocation
def end(invocation: Invocation, id: str) -> None:  # noqa: A002
    """End an initial access token permanently.

    Clients that have registered with it stay.
    """
    with invocation.operations() as carry_out:
        ended = carry_out(end_registration_token, id, actor=invocation.actor)
    click.echo(f"The initial access token {id} ended at {timestamp(ended.ends_at)}.")


registration_token = add_all(
    Commands("registration-token", help="Permit clients to register themselves."),
    [create, list_, end],
)
