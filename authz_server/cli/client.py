"""``client``: register clients and change what they may ask for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import echo_status, json_option, print_change, print_rows, timestamp
from authz_server.cli.parties import (
    all_of_kind,
    authentication_method_option,
    describe_secret,
    expand_scopes,
    party_commands,
    print_secret,
    state_of,
)
from authz_server.cli.secret_files import (
    read_secret,
    require_new_file,
    secret_input_options,
    secret_output_option,
)
from authz_server.cli.values import INSTANT, INSTANT_OR_NONE, drop_unset
from authz_server.clients.authentication.credentials import CLIENT_SECRET
from authz_server.clients.models import Client
from authz_server.clients.rules import G2P_ANSWERS, PERMISSIONS
from authz_server.database.orm import transaction
from authz_server.operations.unowned_scopes import find_unowned_scopes

_COLUMNS = {
    "id": "Id",
    "name": "Name",
    "organisation": "Organisation",
    "state": "State",
    "allowed_scopes": "Allowed scopes",
}


def describe_client(_services: Services, _session: Session, client: Client) -> dict[str, Any]:
    """Return a client as ``show`` prints it."""
    now = _services.clock()
    return {
        "id": client.id,
        "name": client.name,
        "organisation": client.organisation,
        "state": state_of(client, now),
        "authentication_method": client.authentication_method,
        "grant_types": client.grant_types,
        "allowed_scopes": client.allowed_scopes,
        "default_scopes": client.default_scopes,
        "allowed_resource_servers": client.allowed_resource_servers,
        "permissions": client.permissions,
        "token_lifetime_seconds": client.token_lifetime_seconds,
        "g2p_answer": client.g2p_answer,
        "starts_at": timestamp(client.starts_at),
        "expires_at": timestamp(client.expires_at),
        "created_at": timestamp(client.created_at),
        "updated_at": timestamp(client.updated_at),
        "secrets": [describe_secret(secret, now) for secret in client.secrets],
    }


@click.command("create", cls=Command)
@click.argument("id", required=False)
@click.option("--name", required=True, help="What people call it.")
@click.option("--organisation", default="", help="Who runs it.")
@click.option(
    "--scope",
    "allowed_scopes",
    multiple=True,
    required=True,
    help="A scope it may ask for, in any spelling; mapper/* stands for all below. Repeatable.",
)
@click.option(
    "--default-scope",
    "default_scopes",
    multiple=True,
    help="A scope it gets when it asks for none. Repeatable.",
)
@click.option(
    "--resource-server",
    "allowed_resource_servers",
    multiple=True,
    help="Hold it to this resource server. Repeatable.",
)
@authentication_method_option(CLIENT_SECRET)
@click.option("--permission", "permissions", multiple=True, type=click.Choice(PERMISSIONS))
@click.option("--lifetime", "token_lifetime_seconds", type=int, help="Of its tokens, in seconds.")
@click.option(
    "--g2p-answer",
    type=click.Choice(G2P_ANSWERS),
    default="document",
    show_default=True,
    help="The answers at /oauth2/client/token: as G2P Connect or as RFC 6749 writes them.",
)
@click.option("--starts", "starts_at", type=INSTANT, help="From when it may ask.")
@click.option("--expires", "expires_at", type=INSTANT, help="Until when.")
@click.option("--no-secret", is_flag=True, help="Make no secret yet.")
@secret_input_options
@secret_output_option
@json_option
@pass_invocation
def create(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    /,
    id: str | None,  # noqa: A002
    no_secret: bool,
    secret_prompt: bool,
    secret_stdin: bool,
    secret_file: Path | None,
    secret_output: Path | None,
    as_json: bool,
    **values: Any,  # noqa: ANN401
) -> None:
    """Register a client and make its first secret, which is shown this once.

    ID is made up when it is not given: 3 to 128 characters of A-Z, a-z, 0-9, _, -, and between
    them . @ : and /. In a Basic header, an id with a colon is sent form-encoded.
    """
    imported = read_secret(
        secret_prompt=secret_prompt, secret_stdin=secret_stdin, secret_file=secret_file
    )
    require_new_file(secret_output)
    with invocation.change() as (services, session):
        for field in ("allowed_scopes", "default_scopes"):
            values[field] = expand_scopes(services, session, values[field])
        client = services.clients.create_client(session, actor=invocation.actor, id=id, **values)
        unowned = find_unowned_scopes(session, client)
        record: dict[str, Any] = {"id": client.id}
        generated = ""
        if not no_secret:
            secret, generated = services.clients.add_secret(
                session, client.id, actor=invocation.actor, imported_secret=imported
            )
            record["secret_id"] = secret.id
    _warn_of_unowned_scopes(unowned)
    if not as_json:
        click.echo(f"The client {record['id']} is registered.")
    if no_secret and as_json:
        print_change(record, "", as_json=True)
    elif not no_secret:
        print_secret(record, generated, secret_output, as_json=as_json)


@click.command("list", cls=Command)
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the clients."""
    with invocation.services() as services, transaction() as session:
        rows = [
            describe_client(services, session, client)
            for client in all_of_kind(services, session, "client")
        ]
    print_rows(rows, _COLUMNS, as_json=as_json)


@click.command("update", cls=Command)
@click.argument("id")
@click.option("--name", help="What people call it.")
@click.option("--organisation", help="Who runs it.")
@click.option(
    "--scope", "allowed_scopes", multiple=True, help="The scopes it may ask for from now on, all."
)
@click.option("--default-scope", "default_scopes", multiple=True, help="Its default scopes, all.")
@click.option(
    "--resource-server",
    "allowed_resource_servers",
    multiple=True,
    help="The resource servers it is held to, all; none: not held to any.",
)
@authentication_method_option()
@click.option(
    "--permission", "permissions", multiple=True, type=click.Choice([*PERMISSIONS, "none"])
)
@click.option("--lifetime", "token_lifetime_seconds", help="Seconds, or none for the default.")
@click.option("--g2p-answer", type=click.Choice(G2P_ANSWERS), help="The form of its G2P answers.")
@click.option("--starts", "starts_at", type=INSTANT_OR_NONE, help="A time, or none.")
@click.option("--expires", "expires_at", type=INSTANT_OR_NONE, help="A time, or none.")
@pass_invocation
def update(invocation: Invocation, /, id: str, **options: Any) -> None:  # noqa: A002, ANN401
    """Change a client; what is not named stays. A list option replaces the whole list.

    The word none empties a list (scopes excepted) and takes a limit away.
    """
    changes = drop_unset(options)
    if not changes:
        raise click.UsageError("Name something to change; --help shows what.")
    for field, value in changes.items():
        if value == ["none"]:
            changes[field] = []
    if isinstance(changes.get("token_lifetime_seconds"), str):
        changes["token_lifetime_seconds"] = _whole_seconds(changes["token_lifetime_seconds"])
    with invocation.change() as (services, session):
        for field in changes.keys() & {"allowed_scopes", "default_scopes"}:
            changes[field] = expand_scopes(services, session, changes[field])
        client = services.clients.update_client(session, id, actor=invocation.actor, **changes)
        unowned = find_unowned_scopes(session, client)
    _warn_of_unowned_scopes(unowned)
    click.echo(f"The client {id} is changed.")


def _whole_seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise click.BadParameter(f"{text!r} is no number of seconds", param_hint="--lifetime")
    return int(text[:10])


def _warn_of_unowned_scopes(names: Sequence[str]) -> None:
    if names:
        echo_status(
            "Warning: requests for these scopes are refused until `authz-server scope assign` "
            f"gives them a resource server: {', '.join(names)}"
        )


client = add_all(
    Commands("client", help="Clients: who may ask for tokens."),
    [create, list_, *party_commands("client", "client", describe_client), update],
)
