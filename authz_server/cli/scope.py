"""``scope``: import, add, change, delete and assign scopes."""

from typing import Any

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, json_option, print_change, print_record, print_rows
from authz_server.cli.values import SECONDS_OR_NONE, drop_unset
from authz_server.operations.scope_changes import delete_scope, update_scope
from authz_server.operations.scopes import (
    add_scope,
    assign_scopes,
    get_scope,
    import_g2p_connect,
    list_scopes,
)
from authz_server.scopes.definition import RISKS
from keys.plurals import counted

_COLUMNS = {
    "name": "Scope",
    "resource_server": "Resource server",
    "risk": "Risk",
    "lifetime_cap_seconds": "Cap (s)",
    "aliases": "Other spellings",
}
_NARROW = {name: heading for name, heading in _COLUMNS.items() if name != "aliases"}


@click.command("import", cls=Command, remote=True, example="authz-server scope import g2p-connect")
@click.argument("catalogue", type=click.Choice(["g2p-connect"]))
@json_option
@pass_invocation
def import_(invocation: Invocation, catalogue: str, as_json: bool) -> None:
    """Import a shipped catalogue of scopes.

    g2p-connect has one scope for each operation of the disburse, mapper and registry interfaces.
    Owners, lifetime caps and further aliases stay as you set them.
    """
    with invocation.operations() as carry_out:
        result = carry_out(import_g2p_connect, actor=invocation.actor)
    record = as_record(result)
    counts = ", ".join(f"{len(names)} {change}" for change, names in record.items())
    print_change(record, f"Scopes of {catalogue}: {counts}.", as_json=as_json)


@click.command(
    "list", cls=Command, remote=True, example="authz-server scope list --resource-server mapper"
)
@click.option(
    "--resource-server",
    "resource_server_id",
    show_default="all scopes",
    help="List only the scopes that this resource server owns.",
)
@json_option
@pass_invocation
def list_(invocation: Invocation, resource_server_id: str | None, as_json: bool) -> None:
    """List the scopes.

    Each has a resource server that owns it, a risk and its other spellings.
    """
    with invocation.operations() as carry_out:
        scopes = carry_out(list_scopes, resource_server_id=resource_server_id)
    print_rows(scopes, _COLUMNS, as_json=as_json, narrow=_NARROW)


@click.command("show", cls=Command, remote=True, example="authz-server scope show mapper/link")
@click.argument("name")
@json_option
@pass_invocation
def show(invocation: Invocation, name: str, as_json: bool) -> None:
    """Show a scope.

    NAME is its canonical name or another of its spellings.
    """
    with invocation.operations() as carry_out:
        found = carry_out(get_scope, name)
    print_record(found, as_json=as_json)


@click.command(
    "add",
    cls=Command,
    remote=True,
    example="authz-server scope add land/read --risk read --alias land.read",
)
@click.argument("name")
@click.option("--description", default="", help="What the scope permits.")
@click.option(
    "--resource-server", "resource_server_id", help="The resource server that owns the scope."
)
@click.option(
    "--risk",
    type=click.Choice(RISKS),
    default="write",
    show_default=True,
    help="The harm that its misuse can do.",
)
@click.option(
    "--lifetime-cap",
    "lifetime_cap_seconds",
    type=int,
    show_default="no cap",
    help="The longest lifetime of a token with the scope, in seconds.",
)
@click.option("--alias", "aliases", multiple=True, help="Another spelling. Repeatable.")
@click.option("--callback-partner", help="The scope of the operation that answers this one.")
@pass_invocation
def add(invocation: Invocation, /, name: str, **values: Any) -> None:  # noqa: ANN401
    """Add a scope of your own.

    The name and its aliases are spellings that no other scope has.
    """
    with invocation.operations() as carry_out:
        carry_out(add_scope, actor=invocation.actor, name=name, **values)
    click.echo(f"The scope {name} is added.")


@click.command(
    "update",
    cls=Command,
    remote=True,
    example="authz-server scope update land/read --risk money --lifetime-cap 300",
)
@click.argument("name")
@click.option("--description", help="What the scope permits.")
@click.option("--risk", type=click.Choice(RISKS), help="The harm that its misuse can do.")
@click.option(
    "--lifetime-cap",
    "lifetime_cap_seconds",
    type=SECONDS_OR_NONE,
    help="The longest lifetime of a token with the scope, in seconds; none for no cap.",
)
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    help="Another spelling; replaces all, and none removes them. Repeatable.",
)
@click.option(
    "--callback-partner",
    help="The scope of the operation that answers this one; none for none.",
)
@pass_invocation
def update(invocation: Invocation, /, name: str, **options: Any) -> None:  # noqa: ANN401
    """Change the named facts of a scope.

    Other facts stay as they are. Tokens with a spelling that is removed are revoked. `scope
    assign` changes the owner.
    """
    changes = drop_unset(options, texts=["description"])
    if not changes:
        raise click.UsageError("Name something to change; --help shows what.")
    if changes.get("aliases") == ["none"]:
        changes["aliases"] = []
    with invocation.operations() as carry_out:
        canonical = carry_out(get_scope, name).name
        carry_out(update_scope, canonical, actor=invocation.actor, **changes)
    click.echo(f"The scope {canonical} is changed.")


@click.command(
    "delete", cls=Command, remote=True, example="authz-server scope delete land/read --yes"
)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def delete(invocation: Invocation, name: str, yes: bool) -> None:
    """Delete a scope.

    Its tokens end, and it leaves the programmes. A scope that a client may ask for is not deleted.
    The command asks first, unless --yes is given.
    """
    with invocation.operations() as carry_out:
        canonical = carry_out(get_scope, name).name
        if not yes:
            click.confirm(f"Delete the scope {canonical}?", abort=True, err=True)
        carry_out(delete_scope, canonical, actor=invocation.actor)
    click.echo(f"The scope {canonical} is deleted.")


@click.command(
    "assign",
    cls=Command,
    remote=True,
    example="authz-server scope assign 'mapper/*' --resource-server mapper",
)
@click.argument("names", nargs=-1, required=True)
@click.option(
    "--resource-server", "resource_server_id", help="The resource server that is to own them."
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
    """Give scopes to a resource server.

    A token is made for the resource server that owns its scopes. In NAMES, mapper/* stands for all
    scopes below.
    """
    if to_none == (resource_server_id is not None):
        raise click.UsageError("Name a --resource-server, or --none.")
    with invocation.operations() as carry_out:
        changed = carry_out(
            assign_scopes,
            names,
            resource_server_id,
            actor=invocation.actor,
            take_over=take_over or to_none,
        )
    scopes = counted(len(changed), "scope")
    click.echo(f"{scopes} changed owner: {', '.join(changed) or 'none'}.")


scope = add_all(
    Commands("scope", help="Add, change and assign scopes, which tokens carry."),
    [import_, list_, show, add, update, delete, assign],
)
