"""``report``: least privilege, and what has no owner."""

from typing import Any

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, json_option, print_json, print_rows
from authz_server.cli.plain_text import timestamp
from authz_server.operations.least_privilege import report_least_privilege
from authz_server.operations.reports import report_owners


@click.command(
    "least-privilege", cls=Command, remote=True, example="authz-server report least-privilege"
)
@click.option(
    "--days",
    type=click.IntRange(1, 3_660),
    default=90,
    show_default=True,
    help="The length of the period until now.",
)
@json_option
@pass_invocation
def least_privilege(invocation: Invocation, days: int, as_json: bool) -> None:
    """Report what clients were permitted and do not use.

    The report has scopes that no token was issued with, scopes that no resource server saw at
    introspection, clients that obtained no token, and secrets that end soon or never. A resource
    server that verifies tokens itself introspects none.
    """
    with invocation.operations() as carry_out:
        found = carry_out(report_least_privilege, days=days)
    if as_json:
        print_json(as_record(found))
        return
    observed = timestamp(found.observed_since)
    use = (
        f"the use of scopes is known since {observed}" if observed else "no use of scopes is known"
    )
    click.echo(f"Since {timestamp(found.since)}; {use}.")
    _section(
        "Scopes that are not used",
        found.unused_scopes,
        {"client_id": "Client", "never_asked": "Never asked for", "never_seen": "Never seen"},
    )
    _section(
        "Clients without a token",
        found.dormant_clients,
        {"client_id": "Client", "organisation": "Organisation", "last_used_at": "Last used"},
    )
    _section(
        "Secrets that end soon, or are old and have no end",
        found.secrets_due,
        {"client_id": "Client", "secret_id": "Secret", "expires_at": "Ends"},
    )


@click.command("owners", cls=Command, remote=True, example="authz-server report owners")
@json_option
@pass_invocation
def owners(invocation: Invocation, as_json: bool) -> None:
    """Report scopes and callbacks without an owner.

    The report has scopes that no resource server owns, for which requests are refused, with up to
    20 of their clients, and up to 20 grants of operations whose callback no client is permitted to
    make.
    """
    with invocation.operations() as carry_out:
        found = carry_out(report_owners)
    if as_json:
        print_json(as_record(found))
        return
    _section(
        "Scopes without a resource server",
        [
            {"scope": name, "clients": clients}
            for name, clients in found.scopes_without_server.items()
        ],
        {"scope": "Scope", "clients": "Clients"},
    )
    _section(
        "Callbacks without a partner",
        found.callbacks_without_partner,
        {"client_id": "Client", "scope": "Scope", "partner": "Callback", "missing": "Missing"},
    )


def _section(title: str, rows: Any, columns: dict[str, str]) -> None:  # noqa: ANN401 - as print_rows
    click.echo(f"{title}: {len(rows)}")
    if rows:
        print_rows(rows, columns, as_json=False)


report = add_all(
    Commands("report", help="Report unused permissions and missing owners."),
    [least_privilege, owners],
)
