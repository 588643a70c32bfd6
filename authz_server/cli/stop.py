"""``stop``: the kill switch for a scope, a client, a resource server or a programme."""

from typing import get_args

import click

from authz_server.cli.audit_files import NO_FILE
from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, echo_status, json_option, print_change, print_rows
from authz_server.cli.plain_text import timestamp
from authz_server.errors import InvalidChangeError
from authz_server.operations.programmes import (
    define_programme,
    delete_programme,
    list_programmes,
)
from authz_server.operations.stops import (
    BlastRadius,
    lift_stop,
    list_stops,
    noun_of,
    plan_stop,
    set_stop,
)
from authz_server.tokens.stops import StopKind

_SHOWN_CLIENTS = 20

_EFFECT = """
No token is issued for it, and introspection on every node answers that its tokens are inactive,
within a second. Revocation works as before. The command shows the affected clients and tokens, and
asks first, unless --yes is given.
"""


def _stop_command(kind: StopKind, name: str, metavar: str, noun: str) -> click.Command:
    @click.command(
        kind,
        cls=Command,
        remote=True,
        help=f"Stop {noun}.\n{_EFFECT}",
        example=f'authz-server stop {kind} {name} --reason "wrong payments" --yes',
    )
    @click.argument("subject", metavar=metavar)
    @click.option("--reason", required=True, help="The reason, for the audit record.")
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @json_option
    @pass_invocation
    def stop_one(
        invocation: Invocation, subject: str, reason: str, yes: bool, as_json: bool
    ) -> None:
        with invocation.operations() as carry_out:
            planned = carry_out(plan_stop, kind, subject)
            for line in _lines_of(planned):
                echo_status(line)
            if not yes:
                question = f"Stop the {noun_of(kind)} {planned.subject}?"
                click.confirm(question, abort=True, err=True)
            try:
                carry_out(set_stop, planned, reason=reason, actor=invocation.actor)
            except InvalidChangeError as error:
                raise click.UsageError(str(error)) from error
        sentence = f"The {noun_of(kind)} {planned.subject} is stopped."
        print_change(as_record(planned), sentence, as_json=as_json)

    return stop_one


def _lines_of(planned: BlastRadius) -> list[str]:
    shown = ", ".join(planned.clients[:_SHOWN_CLIENTS])
    more = planned.client_count - _SHOWN_CLIENTS
    rest = f" and {more} more" if more > 0 else ""
    lines = [
        f"Scopes: {len(planned.scopes)}.",
        f"Clients that hold them ({planned.client_count}): {shown or 'none'}{rest}.",
        f"Resource servers: {', '.join(planned.resource_servers) or 'none'}.",
    ]
    if planned.in_force is None:
        lines.append(f"Tokens in force: unknown. {NO_FILE}")
    else:
        since = timestamp(planned.in_force_since) or "now"
        bound = "" if planned.complete else f", by records that begin at {since}"
        lines.append(f"Tokens in force: {planned.in_force}{bound}.")
    return lines


@click.command("list", cls=Command, remote=True, example="authz-server stop list")
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the stops in force.

    The oldest comes first. The audit records have those that were lifted.
    """
    with invocation.operations() as carry_out:
        rows = carry_out(list_stops)
    columns = {
        "kind": "Kind",
        "subject": "Stopped",
        "created_at": "Since",
        "actor": "By",
        "reason": "Reason",
    }
    print_rows(rows, columns, as_json=as_json)


@click.command(
    "lift",
    cls=Command,
    remote=True,
    example='authz-server stop lift client ministry --reason "INC-17 is closed"',
)
@click.argument("kind", type=click.Choice(get_args(StopKind)))
@click.argument("subject", metavar="NAME")
@click.option("--reason", required=True, help="The reason, for the audit record.")
@json_option
@pass_invocation
def lift(invocation: Invocation, kind: StopKind, subject: str, reason: str, as_json: bool) -> None:
    """Lift a stop.

    Tokens are issued again within a second. Tokens that were issued before are active again unless
    they are revoked or expired: revoke them first if they must stay inactive.
    """
    with invocation.operations() as carry_out:
        try:
            lifted = carry_out(lift_stop, kind, subject, reason=reason, actor=invocation.actor)
        except InvalidChangeError as error:
            raise click.UsageError(str(error)) from error
    sentence = f"The {noun_of(kind)} {lifted.subject} is no longer stopped."
    print_change(as_record(lifted), sentence, as_json=as_json)


@click.command(
    "define",
    cls=Command,
    remote=True,
    example="authz-server stop define cash-2026 --scope 'disburse/*' --client ministry",
)
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="A scope of the programme in any spelling; mapper/* stands for all below. Repeatable.",
)
@click.option("--client", "clients", multiple=True, help="A client of the programme. Repeatable.")
@json_option
@pass_invocation
def define(
    invocation: Invocation,
    name: str,
    scopes: tuple[str, ...],
    clients: tuple[str, ...],
    as_json: bool,
) -> None:
    """Define a programme: scopes and clients to stop together.

    A stop of the programme stops each of its scopes for all clients, and each of its clients for
    all scopes. The command replaces the definition of a programme that exists.
    """
    with invocation.operations() as carry_out:
        try:
            defined = carry_out(
                define_programme, name, scopes=scopes, clients=clients, actor=invocation.actor
            )
        except InvalidChangeError as error:
            raise click.UsageError(str(error)) from error
    sentence = (
        f"The programme {defined.name} is defined. Scopes: {len(defined.scopes)}, clients:"
        f" {len(defined.clients)}."
    )
    print_change(as_record(defined), sentence, as_json=as_json)


@click.command("undefine", cls=Command, remote=True, example="authz-server stop undefine cash-2026")
@click.argument("name")
@json_option
@pass_invocation
def undefine(invocation: Invocation, name: str, as_json: bool) -> None:
    """Delete a programme.

    Its scopes and clients stay as they are. A programme that is stopped is not deleted.
    """
    with invocation.operations() as carry_out:
        deleted = carry_out(delete_programme, name, actor=invocation.actor)
    sentence = f"The programme {deleted.name} is deleted."
    print_change(as_record(deleted), sentence, as_json=as_json)


@click.command("programmes", cls=Command, remote=True, example="authz-server stop programmes")
@json_option
@pass_invocation
def programmes(invocation: Invocation, as_json: bool) -> None:
    """List the programmes.

    A programme is a named set of scopes and clients that are stopped together.
    """
    with invocation.operations() as carry_out:
        rows = carry_out(list_programmes)
    columns = {"name": "Name", "scopes": "Scopes", "clients": "Clients"}
    print_rows(rows, columns, as_json=as_json)


stop = add_all(
    Commands("stop", help="Stop a scope, client, resource server or programme."),
    [
        _stop_command("scope", "disburse/pay", "SCOPE", "a scope"),
        _stop_command("client", "ministry", "CLIENT", "a client"),
        _stop_command("resource-server", "mapper", "RESOURCE_SERVER", "a resource server"),
        _stop_command("programme", "cash-2026", "NAME", "the scopes and clients of a programme"),
        list_,
        lift,
        define,
        undefine,
        programmes,
    ],
)
