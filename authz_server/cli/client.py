"""``client``: register clients and change what they may ask for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import echo_status, json_option
from authz_server.cli.registration import (
    authentication_method_option,
    delete_command,
    print_created,
    property_options,
    show_command,
    switch_commands,
    warn_of_earlier_secrets,
    warn_of_missing_keys,
)
from authz_server.cli.secret import Noun, secret_group
from authz_server.cli.secret_files import (
    read_secret,
    require_new_file,
    secret_input_options,
    secret_output_option,
)
from authz_server.cli.values import INSTANT, INSTANT_OR_NONE, SECONDS_OR_NONE, drop_unset
from authz_server.clients.authentication.shared_secret import CLIENT_SECRET
from authz_server.clients.validation import DEFAULT_GRANT_TYPES, G2P_ANSWERS, PERMISSIONS
from authz_server.operations.clients import create_client, get_client, update_client

_CLIENT = Noun("client", "client", "client", "ministry", get_client)


@click.command(
    "create",
    cls=Command,
    remote=True,
    example="authz-server client create ministry --name Ministry --scope 'mapper/*'",
)
@click.argument("id", required=False)
@click.option("--name", required=True, help="The name that people know the client by.")
@click.option("--organisation", default="", help="The organisation that runs the client.")
@click.option(
    "--scope",
    "allowed_scopes",
    multiple=True,
    required=True,
    help="A scope that the client may ask for, in any spelling; mapper/* stands for all below. "
    "Repeatable.",
)
@click.option(
    "--default-scope",
    "default_scopes",
    multiple=True,
    help="A scope that the client gets when it asks for none. Repeatable.",
)
@click.option(
    "--resource-server",
    "allowed_resource_servers",
    multiple=True,
    show_default="those that own its scopes",
    help="A resource server that the client is limited to. Repeatable.",
)
@authentication_method_option(CLIENT_SECRET)
@click.option(
    "--grant-type",
    "grant_types",
    multiple=True,
    default=DEFAULT_GRANT_TYPES,
    show_default=True,
    help="A grant type that the client may use. Repeatable.",
)
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    type=click.Choice(PERMISSIONS),
    help="A permission beyond its scopes. Repeatable.",
)
@click.option(
    "--lifetime",
    "token_lifetime_seconds",
    type=int,
    show_default="tokens.default_lifetime_seconds",
    help="The lifetime of its tokens, in seconds.",
)
@click.option(
    "--g2p-answer",
    type=click.Choice(G2P_ANSWERS),
    default="document",
    show_default=True,
    help="The answers at /oauth2/client/token: as G2P Connect or as RFC 6749 writes them.",
)
@click.option(
    "--starts",
    "starts_at",
    type=INSTANT,
    show_default="now",
    help="The time before which the client is refused.",
)
@click.option(
    "--expires",
    "expires_at",
    type=INSTANT,
    show_default="no end",
    help="The time after which the client is refused.",
)
@property_options
@click.option("--no-secret", is_flag=True, help="Register the client without a secret.")
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
    """Register a client and make its first secret.

    The secret is shown once. ID is generated where none is given; it has 3 to 128 characters of
    A-Z, a-z, 0-9, _, -, and between them . @ : / and ~.
    """
    imported = read_secret(
        secret_prompt=secret_prompt, secret_stdin=secret_stdin, secret_file=secret_file
    )
    require_new_file(secret_output)
    with invocation.operations() as carry_out:
        created = carry_out(
            create_client,
            actor=invocation.actor,
            id=id,
            with_secret=not no_secret,
            imported_secret=imported,
            **values,
        )
    _warn_of_unowned_scopes(created.unowned_scopes)
    warn_of_missing_keys(created.client)
    record = {"id": created.client.id}
    print_created(_CLIENT, record, created.secret, secret_output, as_json=as_json)


@click.command(
    "update", cls=Command, remote=True, example="authz-server client update ministry --lifetime 300"
)
@click.argument("id")
@click.option("--name", help="The name that people know the client by.")
@click.option("--organisation", help="The organisation that runs the client.")
@click.option(
    "--scope",
    "allowed_scopes",
    multiple=True,
    help="A scope that the client may ask for; replaces all. Repeatable.",
)
@click.option(
    "--default-scope",
    "default_scopes",
    multiple=True,
    help="A scope that the client gets when it asks for none; replaces all. Repeatable.",
)
@click.option(
    "--resource-server",
    "allowed_resource_servers",
    multiple=True,
    help="A resource server that the client is limited to; replaces all. Repeatable.",
)
@authentication_method_option()
@click.option(
    "--grant-type",
    "grant_types",
    multiple=True,
    help="A grant type that the client may use; replaces all. Repeatable.",
)
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    type=click.Choice([*PERMISSIONS, "none"]),
    help="A permission beyond its scopes; replaces all. Repeatable.",
)
@click.option(
    "--lifetime",
    "token_lifetime_seconds",
    type=SECONDS_OR_NONE,
    help="The lifetime of its tokens, in seconds; none for that of the settings.",
)
@click.option(
    "--g2p-answer",
    type=click.Choice(G2P_ANSWERS),
    help="The answers at /oauth2/client/token: as G2P Connect or as RFC 6749 writes them.",
)
@click.option(
    "--starts",
    "starts_at",
    type=INSTANT_OR_NONE,
    help="The time before which the client is refused; none for no such time.",
)
@click.option(
    "--expires",
    "expires_at",
    type=INSTANT_OR_NONE,
    help="The time after which the client is refused; none for no such time.",
)
@property_options
@pass_invocation
def update(invocation: Invocation, /, id: str, **options: Any) -> None:  # noqa: A002, ANN401
    """Change the named fields of a client.

    Other fields stay as they are. An option that is repeatable replaces the whole list; the word
    none empties it, scopes excepted.
    """
    changes = drop_unset(options)
    if not changes:
        raise click.UsageError("Name something to change; --help shows what.")
    for field, value in changes.items():
        if value == ["none"]:
            changes[field] = []
    with invocation.operations() as carry_out:
        changed = carry_out(update_client, id, actor=invocation.actor, **changes)
    _warn_of_unowned_scopes(changed.unowned_scopes)
    warn_of_missing_keys(changed.client)
    warn_of_earlier_secrets(_CLIENT, id, changes)
    click.echo(f"The client {id} is changed.")


def _warn_of_unowned_scopes(names: Sequence[str]) -> None:
    if names:
        echo_status(
            "Warning: requests for these scopes are refused until `authz-server scope assign` "
            f"gives them a resource server: {', '.join(names)}"
        )


show = show_command(_CLIENT)
enable, disable = switch_commands(_CLIENT)
delete = delete_command(_CLIENT)
secret = secret_group(_CLIENT)
