"""``client list``: find clients."""

from datetime import datetime
from typing import get_args

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, Operations, pass_invocation
from authz_server.cli.output import echo_status, json_option, print_rows
from authz_server.cli.values import INSTANT, PAST_INSTANT
from authz_server.operations.client_orders import ClientSort
from authz_server.operations.client_search import ClientFilters, find_clients
from keys.plurals import counted

_STATES = ("enabled", "disabled", "expired", "not yet")
_HEADINGS = {
    "id": "Id",
    "name": "Name",
    "organisation": "Organisation",
    "state": "State",
    "stopped_by": "Stopped by",
    "authentication_method": "Method",
    "allowed_scopes": "Allowed scopes",
    "last_used_at": "Last used",
    "secret_ends_at": "Secret ends",
    "created_at": "Created",
    "updated_at": "Changed",
}
_COLUMNS = ("id", "name", "organisation", "state", "allowed_scopes")
#: Those of a list with a stopped client.
_OF_STOPPED = ("id", "name", "organisation", "state", "stopped_by", "allowed_scopes")


@click.command(
    "list",
    cls=Command,
    remote=True,
    example="authz-server client list disburse --unused-since -90d",
)
@click.argument("text", required=False, default="")
@click.option("--organisation", help="The organisation that runs them.")
@click.option("--scope", help="A scope that they may ask for, in any spelling.")
@click.option("--method", "authentication_method", help="Their authentication method.")
@click.option("--state", type=click.Choice(_STATES), help="Their state.")
@click.option(
    "--unused-since",
    type=PAST_INSTANT,
    help="The time since which they obtained no token, such as -90d.",
)
@click.option(
    "--secret-ends-before",
    type=INSTANT,
    help="The time before which a secret of theirs ends, such as +30d.",
)
@click.option(
    "--sort",
    type=click.Choice(get_args(ClientSort)),
    default="id",
    show_default=True,
    help="The order; clients that were never used come first by last-used.",
)
@click.option("--descending", is_flag=True, help="Reverse the order.")
@click.option(
    "--columns",
    show_default=",".join(_COLUMNS),
    help=f"The columns of the table, of {', '.join(_HEADINGS)}.",
)
@click.option("--limit", type=click.IntRange(1), show_default="all", help="The size of a page.")
@click.option(
    "--page", type=click.IntRange(1), default=1, show_default=True, help="The page to show."
)
@click.option("--count", is_flag=True, help="Print only the number of clients.")
@json_option
@pass_invocation
def client_list(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    text: str,
    organisation: str | None,
    scope: str | None,
    authentication_method: str | None,
    state: str | None,
    unused_since: datetime | None,
    secret_ends_before: datetime | None,
    sort: ClientSort,
    descending: bool,
    columns: str | None,
    limit: int | None,
    page: int,
    count: bool,
    as_json: bool,
) -> None:
    """List the clients, or those with TEXT in them.

    TEXT is a part of the id, the name, the organisation or a scope. The table shows the state and
    the allowed scopes of each, and the stop of those that are stopped; JSON shows every field.
    """
    shown = _shown_columns(columns)
    if page > 1 and limit is None:
        raise click.UsageError("--page: name the size of a page with --limit.")
    with invocation.operations() as carry_out:
        filters = ClientFilters(
            text=text,
            organisation=organisation,
            authentication_method=authentication_method,
            scope=None if scope is None else _canonical_name(carry_out, scope),
            state=state,
            unused_since=unused_since,
            secret_ends_before=secret_ends_before,
        )
        found = carry_out(
            find_clients,
            filters,
            sort=sort,
            descending=descending,
            offset=(page - 1) * (limit or 0),
            limit=0 if count else limit,
        )
    if count:
        click.echo(found.total)
        return
    if columns is None and any(each.stopped_by for each in found.clients):
        shown = _shown_columns(",".join(_OF_STOPPED))
    print_rows(found.clients, shown, as_json=as_json)
    if not found.is_exact:
        echo_status(f"{len(found.clients)} of more than {found.total} clients.")
    elif len(found.clients) < found.total:
        echo_status(f"{len(found.clients)} of {counted(found.total, 'client')}.")
    elif found.total > 1 and not as_json:
        echo_status(f"{found.total} clients.")


def _canonical_name(carry_out: Operations, spelling: str) -> str:
    from authz_server.operations.scopes import get_scope  # noqa: PLC0415 - slow, for one option

    return carry_out(get_scope, spelling).name


def _shown_columns(columns: str | None) -> dict[str, str]:
    names = _COLUMNS if columns is None else tuple(each.strip() for each in columns.split(","))
    unknown = [each for each in names if each not in _HEADINGS]
    if unknown:
        raise click.UsageError(f"--columns: {unknown[0]!r} is none of {', '.join(_HEADINGS)}.")
    return {name: _HEADINGS[name] for name in names}
