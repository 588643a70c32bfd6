"""``operator``: create the people who administer the server, and give them roles."""

from typing import Any

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import (
    as_record,
    echo_status,
    json_option,
    print_change,
    print_record,
    print_rows,
)
from authz_server.cli.plain_text import timestamp
from authz_server.operations.operator_roles import AssignedRole, list_roles
from authz_server.operations.operator_sessions import end_sessions
from authz_server.operations.operators import (
    Enrolment,
    create_operator,
    delete_operator,
    get_operator,
    list_operators,
    renew_enrolment,
    set_operator_enabled,
    update_operator,
)
from authz_server.operations.passkeys import list_passkeys, remove_passkey

_COLUMNS = {
    "name": "Name",
    "state": "State",
    "roles": "Roles",
    "passkeys": "Passkeys",
    "id": "Id",
}
_PASSKEY_COLUMNS = {
    "id": "Id",
    "name": "Name",
    "created_at": "Created",
    "last_used_at": "Last used",
}
#: The words of the table of roles in docs/administration.md.
_LIMITED = {"must": "required", "may": "possible", "never": "none"}
_limit_options = (
    click.option(
        "--resource-server",
        "resource_servers",
        multiple=True,
        help="The id of a resource server that the roles are limited to. Repeatable.",
    ),
    click.option(
        "--organisation",
        "organisations",
        multiple=True,
        help="An organisation that the roles are limited to. Repeatable.",
    ),
)


def _with_limits(command: Any) -> Any:  # noqa: ANN401 - a decorator of click
    for option in reversed(_limit_options):
        command = option(command)
    return command


@click.command(
    "create",
    cls=Command,
    remote=True,
    example="authz-server operator create ada --role security-officer",
)
@click.argument("name")
@click.option("--role", "roles", multiple=True, help="A role of the operator. Repeatable.")
@_with_limits
@json_option
@pass_invocation
def create(
    invocation: Invocation,
    /,
    name: str,
    roles: tuple[str, ...],
    as_json: bool,
    **limits: tuple[str, ...],
) -> None:
    """Create an operator, and print a link for a passkey.

    The link works once, for 15 minutes. The limits apply to every role that is named here; roles
    with other limits are added by update.
    """
    assigned = [AssignedRole(role=role, **limits) for role in roles]
    with invocation.operations() as carry_out:
        created = carry_out(create_operator, actor=invocation.actor, name=name, roles=assigned)
    record = {**as_record(created.operator), "enrolment": as_record(created.enrolment)}
    print_change(
        record,
        f"The operator {name} is created.",
        as_json=as_json,
        show=lambda: _print_link(created.enrolment),
    )


@click.command("list", cls=Command, remote=True, example="authz-server operator list")
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the operators, by name.

    Operators that log in at an OpenID Connect provider are not stored here.
    """
    with invocation.operations() as carry_out:
        operators = carry_out(list_operators)
    rows: list[Any] = [as_record(each) for each in operators]
    if not as_json:
        rows = [{**row, "roles": [_describe(role) for role in row["roles"]]} for row in rows]
    print_rows(rows, _COLUMNS, as_json=as_json)


@click.command("show", cls=Command, remote=True, example="authz-server operator show ada")
@click.argument("name")
@json_option
@pass_invocation
def show(invocation: Invocation, name: str, as_json: bool) -> None:
    """Show an operator with the roles and permissions.

    The name or the id of the operator is given.
    """
    with invocation.operations() as carry_out:
        operator = carry_out(get_operator, name)
    record = dict(as_record(operator))
    if not as_json:
        record["roles"] = [_describe(role) for role in record["roles"]]
    print_record(record, as_json=as_json)


@click.command(
    "update",
    cls=Command,
    remote=True,
    example="authz-server operator update ada --add-role api-owner \\\n"
    "    --resource-server mapper",
)
@click.argument("name")
@click.option("--role", "roles", multiple=True, help="A role; replaces all roles. Repeatable.")
@click.option("--add-role", "added", multiple=True, help="A role to add. Repeatable.")
@click.option("--remove-role", "removed", multiple=True, help="A role to remove. Repeatable.")
@_with_limits
@json_option
@pass_invocation
def update(  # noqa: PLR0913 - the options of the command
    invocation: Invocation,
    /,
    *,
    name: str,
    roles: tuple[str, ...],
    added: tuple[str, ...],
    removed: tuple[str, ...],
    as_json: bool,
    **limits: tuple[str, ...],
) -> None:
    """Change the roles of an operator, and the limits of roles.

    A role that is added again gets the limits that are given now. The last enabled security officer
    keeps this role.
    """
    if bool(roles) == bool(added or removed):
        raise click.UsageError("Give --role, or --add-role and --remove-role.")
    named = [AssignedRole(role=role, **limits) for role in (*roles, *added)]
    with invocation.operations() as carry_out:
        for role in removed:
            if role not in {each.role for each in carry_out(get_operator, name).roles}:
                raise click.UsageError(f"{name} does not have the role {role}.")
        if not roles:
            replaced = {*added, *removed}
            named += [
                AssignedRole(
                    role=held.role,
                    resource_servers=held.resource_servers,
                    organisations=held.organisations,
                )
                for held in carry_out(get_operator, name).roles
                if held.role not in replaced
            ]
        operator = carry_out(update_operator, name, actor=invocation.actor, roles=named)
    held_now = ", ".join(map(_describe, map(as_record, operator.roles))) or "no role"
    print_change(
        as_record(operator), f"The operator {operator.name} has {held_now}.", as_json=as_json
    )


def _switch(verb: str, *, enabled: bool, text: str) -> click.Command:
    @click.command(
        verb, cls=Command, remote=True, help=text, example=f"authz-server operator {verb} ada"
    )
    @click.argument("name")
    @pass_invocation
    def switch(invocation: Invocation, name: str) -> None:
        with invocation.operations() as carry_out:
            operator = carry_out(
                set_operator_enabled, name, actor=invocation.actor, enabled=enabled
            )
        click.echo(f"The operator {operator.name} is {operator.state}.")

    return switch


disable = _switch(
    "disable",
    enabled=False,
    text="""Disable an operator, and end the sessions.

    All sessions and enrolment links of the operator end at once. The last enabled security officer
    is not disabled.
    """,
)
enable = _switch(
    "enable",
    enabled=True,
    text="""Enable an operator.

    The operator logs in again with a passkey that is enrolled.
    """,
)


@click.command("enrol", cls=Command, remote=True, example="authz-server operator enrol ada")
@click.argument("name")
@json_option
@pass_invocation
def enrol(invocation: Invocation, name: str, as_json: bool) -> None:
    """Print a link for a further passkey.

    The link works once, for 15 minutes; an earlier link ends.
    """
    with invocation.operations() as carry_out:
        link = carry_out(renew_enrolment, name, actor=invocation.actor)
    print_change(
        as_record(link),
        f"A passkey of {name} is enrolled by this link.",
        as_json=as_json,
        show=lambda: _print_link(link),
    )


@click.command("log-out", cls=Command, remote=True, example="authz-server operator log-out ada")
@click.argument("name")
@json_option
@pass_invocation
def log_out(invocation: Invocation, name: str, as_json: bool) -> None:
    """End all sessions of an operator.

    NAME is the name or the id in records, also of a person of the OpenID Connect provider. The
    operator may log in again: disable a local one, or the account at the provider.
    """
    with invocation.operations() as carry_out:
        done = carry_out(end_sessions, name, actor=invocation.actor)
    print_change(
        as_record(done),
        f"{done.operator} is logged out. Sessions: {done.sessions}.",
        as_json=as_json,
    )


@click.command("delete", cls=Command, remote=True, example="authz-server operator delete ada --yes")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def delete(invocation: Invocation, name: str, yes: bool) -> None:
    """Delete an operator with the passkeys.

    The sessions end at once. The command asks first, unless --yes is given.
    """
    with invocation.operations() as carry_out:
        found = carry_out(get_operator, name).name
        if not yes:
            click.confirm(f"Delete the operator {found}?", abort=True, err=True)
        carry_out(delete_operator, name, actor=invocation.actor)
    click.echo(f"The operator {found} is deleted.")


@click.command("roles", cls=Command, remote=True, example="authz-server operator roles")
@json_option
@pass_invocation
def roles(invocation: Invocation, as_json: bool) -> None:
    """List the roles and their permissions.

    These are the shipped roles, and those of [admin.roles] in the settings.
    """
    with invocation.operations() as carry_out:
        found = carry_out(list_roles)
    rows = [
        {
            "name": each.name,
            "limited": each.limited if as_json else _LIMITED[each.limited],
            "permissions": sorted(each.permissions),
        }
        for each in found
    ]
    headings = {"name": "Role", "limited": "Limits", "permissions": "Permissions"}
    print_rows(rows, headings, as_json=as_json)


@click.command("list", cls=Command, remote=True, example="authz-server operator passkey list ada")
@click.argument("name")
@json_option
@pass_invocation
def list_passkeys_(invocation: Invocation, name: str, as_json: bool) -> None:
    """List the passkeys of an operator.

    The name of a passkey is the one that the operator gave it.
    """
    with invocation.operations() as carry_out:
        found = carry_out(list_passkeys, name)
    print_rows(found, _PASSKEY_COLUMNS, as_json=as_json)


@click.command(
    "remove",
    cls=Command,
    remote=True,
    example="authz-server operator passkey remove ada PASSKEY_ID --yes",
)
@click.argument("name")
@click.argument("passkey_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def remove_passkey_(invocation: Invocation, name: str, passkey_id: str, yes: bool) -> None:
    """Remove a passkey, and end the operator's sessions.

    PASSKEY_ID is its id in the list, for example of a lost device. After the last one, the operator
    needs a link of `operator enrol` to log in again. The command asks first, unless --yes is given.
    """
    with invocation.operations() as carry_out:
        if not yes:
            click.confirm(f"Remove the passkey {passkey_id} of {name}?", abort=True, err=True)
        carry_out(remove_passkey, name, passkey_id, actor=invocation.actor)
    click.echo(f"The passkey {passkey_id} of {name} is removed.")


passkey = add_all(
    Commands("passkey", help="List and remove the passkeys of an operator."),
    [list_passkeys_, remove_passkey_],
)


def _print_link(enrolment: Enrolment) -> None:
    echo_status(f"The link works once, until {timestamp(enrolment.expires_at)}:")
    click.echo(enrolment.link)


def _describe(role: Any) -> str:  # noqa: ANN401 - a record of a role
    limits = ", ".join((*role["resource_servers"], *role["organisations"]))
    return f"{role['role']} ({limits})" if limits else str(role["role"])


operator = add_all(
    Commands("operator", help="Create the people who administer the server."),
    [create, list_, show, update, disable, enable, enrol, log_out, passkey, delete, roles],
)
