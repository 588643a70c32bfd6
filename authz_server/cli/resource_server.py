"""``resource-server``: register and change the resource servers of tokens."""

from pathlib import Path
from typing import Any

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import json_option, print_record, print_rows
from authz_server.cli.registration import (
    authentication_method_option,
    delete_command,
    print_created,
    property_options,
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
from authz_server.cli.values import drop_unset
from authz_server.clients.authentication.shared_secret import CLIENT_SECRET
from authz_server.clients.validation import (
    INTROSPECTION_AUDIENCES,
    PERMISSIONS,
    TOKEN_FORMATS,
    TOKEN_TYPES,
)
from authz_server.operations.resource_servers import (
    create_resource_server,
    get_resource_server,
    list_resource_servers,
    update_resource_server,
)
from authz_server.operations.snippets import KINDS, render_snippet

_RESOURCE_SERVER = Noun(
    "resource server", "resource-server", "resource_server", "mapper", get_resource_server
)
_COLUMNS = {
    "id": "Id",
    "name": "Name",
    "identifier": "Identifier",
    "state": "State",
    "token_format": "Tokens",
    "scopes": "Scopes",
}


@click.command(
    "create",
    cls=Command,
    remote=True,
    example="authz-server resource-server create mapper --name Mapper \\\n"
    "    --identifier https://mapper.example.org --scope 'mapper/*'",
)
@click.argument("id", required=False)
@click.option("--name", required=True, help="The name that people know the resource server by.")
@click.option("--identifier", required=True, help="Its URI, the audience of its tokens.")
@click.option("--organisation", default="", help="The organisation that runs it.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="A scope that it owns; mapper/* stands for all below. Repeatable.",
)
@click.option("--take-over", is_flag=True, help="Take scopes away from their present owner.")
@click.option(
    "--token-format",
    type=click.Choice(TOKEN_FORMATS),
    default="jwt",
    show_default=True,
    help="The format of its tokens.",
)
@click.option(
    "--signing-ring",
    show_default="keys.default_ring",
    help="The key ring that signs its tokens.",
)
@click.option(
    "--token-type",
    type=click.Choice(TOKEN_TYPES),
    default="at+jwt",
    show_default=True,
    help="The typ of its JWTs; JWT for verifiers that refuse at+jwt.",
)
@click.option(
    "--introspection-audience",
    type=click.Choice(INTROSPECTION_AUDIENCES),
    default="identifier",
    show_default=True,
    help="The aud of signed introspection answers: its URI or its id.",
)
@authentication_method_option(CLIENT_SECRET)
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    type=click.Choice(PERMISSIONS),
    help="A permission beyond its own tokens. Repeatable.",
)
@property_options
@click.option("--no-secret", is_flag=True, help="Register the resource server without a secret.")
@secret_input_options
@secret_output_option
@json_option
@pass_invocation
def create(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    /,
    id: str | None,  # noqa: A002
    scopes: tuple[str, ...],
    take_over: bool,
    no_secret: bool,
    secret_prompt: bool,
    secret_stdin: bool,
    secret_file: Path | None,
    secret_output: Path | None,
    as_json: bool,
    **values: Any,  # noqa: ANN401
) -> None:
    """Register a resource server and make its first secret.

    The secret, which it uses for introspection, is shown once. ID is generated where none is
    given.
    """
    imported = read_secret(
        secret_prompt=secret_prompt, secret_stdin=secret_stdin, secret_file=secret_file
    )
    require_new_file(secret_output)
    with invocation.operations() as carry_out:
        created = carry_out(
            create_resource_server,
            actor=invocation.actor,
            id=id,
            scopes=scopes,
            take_over=take_over,
            with_secret=not no_secret,
            imported_secret=imported,
            **values,
        )
    warn_of_missing_keys(created.resource_server)
    record = {"id": created.resource_server.id, "scopes": created.assigned_scopes}
    print_created(_RESOURCE_SERVER, record, created.secret, secret_output, as_json=as_json)


@click.command("list", cls=Command, remote=True, example="authz-server resource-server list --json")
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the resource servers.

    The table shows the identifier and the scopes of each; JSON shows every field.
    """
    with invocation.operations() as carry_out:
        servers = carry_out(list_resource_servers)
    print_rows(servers, _COLUMNS, as_json=as_json)


@click.command(
    "show",
    cls=Command,
    remote=True,
    example="authz-server resource-server show mapper --snippet spring",
)
@click.argument("id")
@click.option(
    "--snippet",
    type=click.Choice(KINDS),
    metavar="SOFTWARE",
    help="Print the settings of other software instead, filled in, without the secret: for "
    f"{', '.join(KINDS)}.",
)
@json_option
@pass_invocation
def show(invocation: Invocation, id: str, snippet: str | None, as_json: bool) -> None:  # noqa: A002
    """Show one resource server.

    With --snippet, show how other software is set to check its tokens.
    """
    if snippet and as_json:
        raise click.UsageError("--snippet prints no JSON.")
    if snippet:
        invocation.require_here("--snippet")
        with invocation.services() as services:
            server = get_resource_server(services, id)
            click.echo(render_snippet(snippet, services.settings, server), nl=False)
        return
    with invocation.operations() as carry_out:
        server = carry_out(get_resource_server, id)
    print_record(server, as_json=as_json)


@click.command(
    "update",
    cls=Command,
    remote=True,
    example="authz-server resource-server update mapper --token-format reference",
)
@click.argument("id")
@click.option("--name", help="The name that people know the resource server by.")
@click.option("--organisation", help="The organisation that runs it.")
@click.option("--identifier", help="Its new URI; tokens made for the old one become inactive.")
@click.option("--token-format", type=click.Choice(TOKEN_FORMATS), help="The format of its tokens.")
@click.option(
    "--signing-ring", help="The key ring that signs its tokens; none for the default ring."
)
@click.option(
    "--token-type",
    type=click.Choice(TOKEN_TYPES),
    help="The typ of its JWTs; JWT for verifiers that refuse at+jwt.",
)
@click.option(
    "--introspection-audience",
    type=click.Choice(INTROSPECTION_AUDIENCES),
    help="The aud of signed introspection answers: its URI or its id.",
)
@authentication_method_option()
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    type=click.Choice([*PERMISSIONS, "none"]),
    help="A permission beyond its own tokens; replaces all. Repeatable.",
)
@property_options
@pass_invocation
def update(invocation: Invocation, /, id: str, **options: Any) -> None:  # noqa: A002, ANN401
    """Change the named fields of a resource server.

    Other fields stay as they are. Its scopes are changed by `scope assign`.
    """
    changes = drop_unset(options)
    if not changes:
        raise click.UsageError("Name something to change; --help shows what.")
    if changes.get("permissions") == ["none"]:
        changes["permissions"] = []
    with invocation.operations() as carry_out:
        changed = carry_out(update_resource_server, id, actor=invocation.actor, **changes)
    warn_of_missing_keys(changed.resource_server)
    warn_of_earlier_secrets(_RESOURCE_SERVER, id, changes)
    click.echo(f"The resource server {id} is changed.")


resource_server = add_all(
    Commands("resource-server", help="Register and change the resource servers of tokens."),
    [
        create,
        list_,
        show,
        *switch_commands(_RESOURCE_SERVER),
        delete_command(_RESOURCE_SERVER),
        secret_group(_RESOURCE_SERVER),
        update,
    ],
)
