"""``scope``: the catalogue of what tokens can permit."""

from collections.abc import Sequence
from typing import Any

import click
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import json_option, print_change, print_record, print_rows
from authz_server.cli.parties import expand_scopes
from authz_server.database.orm import transaction
from authz_server.scopes.definition import RISKS
from authz_server.scopes.g2p_connect import CATALOGUE
from authz_server.scopes.models import Scope
from authz_server.scopes.service import spellings_of

_COLUMNS = {
    "name": "Scope",
    "resource_server": "Resource server",
    "risk": "Risk",
    "lifetime_cap_seconds": "Cap (s)",
    "aliases": "Other spellings",
}


def describe_scope(scope: Scope) -> dict[str, Any]:
    """Return a scope as ``show`` prints it."""
    return {
        "name": scope.name,
        "description": scope.description,
        "resource_server": scope.resource_server_id,
        "risk": scope.risk,
        "lifetime_cap_seconds": scope.lifetime_cap_seconds,
        "aliases": spellings_of(scope),
        "callback_partner": scope.callback_partner,
    }


def owned_scopes(services: Services, session: Session, resource_server_id: str) -> list[str]:
    """Return the canonical names of a resource server's scopes."""
    owned = services.scopes.list_scopes(session, resource_server_id=resource_server_id)
    return [scope.name for scope in owned]


def assign_scopes(  # noqa: PLR0913 - what, to whom, by whom
    services: Services,
    session: Session,
    names: Sequence[str],
    resource_server_id: str | None,
    *,
    actor: str,
    take_over: bool,
) -> tuple[str, ...]:
    """Give scopes to a resource server; one that has another owner only when told to take over."""
    expanded = expand_scopes(services, session, names)
    for name in expanded:
        scope = services.scopes.get_scope(session, name)
        if not take_over and scope.resource_server_id not in (None, resource_server_id):
            raise click.ClickException(
                f"The scope {scope.name} belongs to {scope.resource_server_id}: "
                "use --take-over to take it away from there."
            )
    if not expanded:
        return ()
    return services.scopes.assign(session, expanded, resource_server_id, actor=actor)


@click.command("import", cls=Command)
@click.argument("catalogue", type=click.Choice(["g2p-connect"]))
@json_option
@pass_invocation
def import_(invocation: Invocation, catalogue: str, as_json: bool) -> None:
    """Bring a shipped catalogue in; what you decided about its scopes stays.

    g2p-connect: one scope for each operation of the disburse, mapper and registry interfaces.
    """
    with invocation.change() as (services, session):
        result = services.scopes.import_catalogue(session, CATALOGUE, actor=invocation.actor)
    record = {
        "added": result.added,
        "updated": result.updated,
        "unchanged": result.unchanged,
    }
    counts = ", ".join(f"{len(names)} {what}" for what, names in record.items())
    print_change(record, f"Scopes of {catalogue}: {counts}.", as_json=as_json)


@click.command("list", cls=Command)
@click.option("--resource-server", "resource_server_id", help="Only the scopes it owns.")
@json_option
@pass_invocation
def list_(invocation: Invocation, resource_server_id: str | None, as_json: bool) -> None:
    """List the catalogue."""
    with invocation.services() as services, transaction() as session:
        scopes = services.scopes.list_scopes(session, resource_server_id=resource_server_id)
        rows = [describe_scope(scope) for scope in scopes]
    print_rows(rows, _COLUMNS, as_json=as_json)


@click.command("show", cls=Command)
@click.argument("name")
@json_option
@pass_invocation
def show(invocation: Invocation, name: str, as_json: bool) -> None:
    """Show a scope, by any of its spellings."""
    with invocation.services() as services, transaction() as session:
        record = describe_scope(services.scopes.get_scope(session, name))
    print_record(record, as_json=as_json)


@click.command("add", cls=Command)
@click.argument("name")
@click.option("--description", default="", help="What it permits.")
@click.option("--resource-server", "resource_server_id", help="The resource server that owns it.")
@click.option("--risk", type=click.Choice(RISKS), default="write", show_default=True)
@click.option(
    "--lifetime-cap", "lifetime_cap_seconds", type=int, help="Longest life of a token, seconds."
)
@click.option("--alias", "aliases", multiple=True, help="Another spelling. Repeatable.")
@click.option("--callback-partner", help="The scope of the operation that answers this one.")
@pass_invocation
def add(invocation: Invocation, /, name: str, **values: Any) -> None:  # noqa: ANN401
    """Add a scope of your own, such as land/read."""
    with invocation.change() as (services, session):
        services.scopes.add_scope(session, actor=invocation.actor, name=name, **values)
    click.echo(f"The scope {name} is added.")


@click.command("assign", cls=Command)
@click.argument("names", nargs=-1, required=True)
@click.option(
    "--resource-server",
    "resource_server_id",
    help="The resource server that owns them from now on.",
)
@click.option("--none", "to_none", is_flag=True, help="Take them from their owner instead.")
@click.option("--take-over", is_flag=True, help="Take scopes away from their present owner.")
@pass_invocation
def assign(
    invocation: Invocation,
    names: tuple[str, ...],
    resource_server_id: str | None,
    to_none: bool,
    take_over: bool,
) -> None:
    """Give scopes to a resource server; mapper/* stands for all below.

    A token is made for the resource server that owns its scopes.
    """
    if to_none == (resource_server_id is not None):
        raise click.UsageError("Name a --resource-server, or --none.")
    with invocation.change() as (services, session):
        changed = assign_scopes(
            services,
            session,
            names,
            resource_server_id,
            actor=invocation.actor,
            take_over=take_over or to_none,
        )
    click.echo(f"{len(changed)} scopes changed owner: {', '.join(changed) or 'none'}.")


scope = add_all(
    Commands("scope", help="Scopes: what a token can permit."),
    [import_, list_, show, add, assign],
)
