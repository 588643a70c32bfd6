"""``resource-server``: register the interfaces that tokens are for."""

from pathlib import Path
from typing import Any

import click
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import (
    json_option,
    print_change,
    print_record,
    print_rows,
    timestamp,
)
from authz_server.cli.parties import (
    all_of_kind,
    authentication_method_option,
    describe_secret,
    party_commands,
    print_secret,
    state_of,
)
from authz_server.cli.scope import assign_scopes, owned_scopes
from authz_server.cli.secret_files import (
    read_secret,
    require_new_file,
    secret_input_options,
    secret_output_option,
)
from authz_server.cli.snippets import KINDS, render_snippet
from authz_server.cli.values import drop_unset
from authz_server.clients.authentication.credentials import CLIENT_SECRET
from authz_server.clients.models import Client
from authz_server.clients.rules import (
    INTROSPECTION_AUDIENCES,
    PERMISSIONS,
    TOKEN_FORMATS,
    TOKEN_TYPES,
)
from authz_server.database.orm import transaction

_COLUMNS = {
    "id": "Id",
    "name": "Name",
    "identifier": "Identifier",
    "state": "State",
    "token_format": "Tokens",
    "scopes": "Scopes",
}


def describe_resource_server(
    services: Services, session: Session, client: Client
) -> dict[str, Any]:
    """Return a resource server as ``show`` prints it."""
    now = services.clock()
    resource = client.resource_server
    return {
        "id": client.id,
        "name": client.name,
        "identifier": resource.identifier if resource else None,
        "state": state_of(client, now),
        "token_format": resource.token_format if resource else None,
        "signing_ring": resource.signing_ring if resource else None,
        "token_type": resource.token_type if resource else None,
        "introspection_audience": resource.introspection_audience if resource else None,
        "authentication_method": client.authentication_method,
        "permissions": client.permissions,
        "scopes": owned_scopes(services, session, client.id),
        "created_at": timestamp(client.created_at),
        "updated_at": timestamp(client.updated_at),
        "secrets": [describe_secret(secret, now) for secret in client.secrets],
    }


_NOT_GIVEN = "none"


@click.command("create", cls=Command)
@click.argument("id", required=False)
@click.option("--name", required=True, help="What people call it.")
@click.option("--identifier", required=True, help="Its URI: the audience of its tokens.")
@click.option("--organisation", default="", help="Who runs it.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="A scope it owns; mapper/* stands for all below. Repeatable.",
)
@click.option("--take-over", is_flag=True, help="Take scopes away from their present owner.")
@click.option("--token-format", type=click.Choice(TOKEN_FORMATS), default="jwt")
@click.option("--signing-ring", help="The key ring that signs its tokens; else the default ring.")
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
@click.option("--permission", "permissions", multiple=True, type=click.Choice(PERMISSIONS))
@click.option("--no-secret", is_flag=True, help="Make no secret yet.")
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
    """Register a resource server, give it scopes, and make its first secret."""
    imported = read_secret(
        secret_prompt=secret_prompt, secret_stdin=secret_stdin, secret_file=secret_file
    )
    require_new_file(secret_output)
    actor = invocation.actor
    with invocation.change() as (services, session):
        server = services.clients.create_resource_server(session, actor=actor, id=id, **values)
        assigned = assign_scopes(
            services, session, scopes, server.id, actor=actor, take_over=take_over
        )
        record: dict[str, Any] = {"id": server.id, "scopes": list(assigned)}
        generated = ""
        if not no_secret:
            secret, generated = services.clients.add_secret(
                session, server.id, actor=actor, imported_secret=imported
            )
            record["secret_id"] = secret.id
    if not as_json:
        click.echo(f"The resource server {record['id']} is registered.")
    if no_secret and as_json:
        print_change(record, "", as_json=True)
    elif not no_secret:
        print_secret(record, generated, secret_output, as_json=as_json)


@click.command("list", cls=Command)
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the resource servers."""
    with invocation.services() as services, transaction() as session:
        rows = [
            describe_resource_server(services, session, server)
            for server in all_of_kind(services, session, "resource_server")
        ]
    print_rows(rows, _COLUMNS, as_json=as_json)


@click.command("show", cls=Command)
@click.argument("id")
@click.option(
    "--snippet",
    type=click.Choice(KINDS),
    help="Print settings for this software instead, filled in, without the secret.",
)
@json_option
@pass_invocation
def show(invocation: Invocation, id: str, snippet: str | None, as_json: bool) -> None:  # noqa: A002
    """Show one resource server, or how software is set to check its tokens."""
    if snippet and as_json:
        raise click.UsageError("--snippet prints no JSON.")
    with invocation.services() as services, transaction() as session:
        server = services.clients.get_client(session, id, kind="resource_server")
        record = describe_resource_server(services, session, server)
        settings = services.settings
    if snippet:
        click.echo(render_snippet(snippet, settings, record), nl=False)
    else:
        print_record(record, as_json=as_json)


@click.command("update", cls=Command)
@click.argument("id")
@click.option("--name", help="What people call it.")
@click.option("--organisation", help="Who runs it.")
@click.option(
    "--identifier", help="Its new URI; tokens made for the old one are inactive from then on."
)
@click.option("--token-format", type=click.Choice(TOKEN_FORMATS))
@click.option("--signing-ring", help="A key ring, or none for the default ring.")
@click.option("--token-type", type=click.Choice(TOKEN_TYPES), help="The typ of its JWTs.")
@click.option(
    "--introspection-audience",
    type=click.Choice(INTROSPECTION_AUDIENCES),
    help="The aud of signed introspection answers.",
)
@authentication_method_option()
@click.option(
    "--permission", "permissions", multiple=True, type=click.Choice([*PERMISSIONS, _NOT_GIVEN])
)
@pass_invocation
def update(invocation: Invocation, /, id: str, **options: Any) -> None:  # noqa: A002, ANN401
    """Change a resource server; what is not named stays. Its scopes: `scope assign`."""
    changes = drop_unset(options)
    if not changes:
        raise click.UsageError("Name something to change; --help shows what.")
    if changes.get("permissions") == [_NOT_GIVEN]:
        changes["permissions"] = []
    with invocation.change() as (services, session):
        services.clients.update_resource_server(session, id, actor=invocation.actor, **changes)
    click.echo(f"The resource server {id} is changed.")


resource_server = add_all(
    Commands("resource-server", help="Resource servers: what tokens are for."),
    [
        create,
        list_,
        *party_commands("resource server", "resource_server", describe_resource_server, show),
        update,
    ],
)
