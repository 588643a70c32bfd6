"""``explain``: the outcome of a request, or the state of a token, and the reason."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, json_option, print_record
from authz_server.cli.token import read_token, token_source
from authz_server.errors import InvalidChangeError
from authz_server.operations.explain import explain_request
from authz_server.operations.explain_token import explain_token


@click.command(
    "request",
    cls=Command,
    remote=True,
    example="authz-server explain request ministry --scope mapper/link",
)
@click.argument("client_id", metavar="CLIENT")
@click.option("--scope", help="The parameter scope; without it, the client's default scopes.")
@click.option(
    "--resource",
    "resources",
    multiple=True,
    help="A parameter resource: the identifier of a resource server. Repeatable.",
)
@click.option("--from", "address", help="The IP address of the sender; without it, any.")
@click.option("--method", help="The client authentication method of the request; without it, any.")
@json_option
@pass_invocation
def request(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    client_id: str,
    scope: str | None,
    resources: tuple[str, ...],
    address: str | None,
    method: str | None,
    as_json: bool,
) -> None:
    """Explain the outcome of a token request.

    The rules of the server decide on a request with the grant type client_credentials and the right
    credentials. The output has the token that it would get, or the cause of the refusal, as in the
    audit record, and the change that would help. No token is issued or counted.
    """
    if address is not None:
        try:
            address = str(ipaddress.ip_address(address))
        except ValueError as error:
            raise click.UsageError("--from: use an IPv4 or IPv6 address.") from error
    with invocation.operations() as carry_out:
        try:
            found = carry_out(
                explain_request,
                client_id,
                scope=scope,
                resources=resources,
                address=address,
                method=method,
            )
        except InvalidChangeError as error:
            raise click.UsageError(str(error)) from error
    record = as_record(found)
    print_record(record if as_json else _without_empty(record), as_json=as_json)


@click.command(
    "token",
    cls=Command,
    remote=True,
    example="authz-server explain token --for mapper token.txt",
)
@token_source
@click.option(
    "--for", "caller_id", required=True, help="The resource server or client that introspects it."
)
@json_option
@pass_invocation
def token(invocation: Invocation, file: Path | None, caller_id: str, as_json: bool) -> None:
    """Explain the state of a token.

    The output has the response of introspection to this caller, the cause of an inactive token,
    and the change that would help. The token is read from FILE, or from standard input. It is
    neither stored nor recorded.
    """
    presented = read_token(file)
    with invocation.operations() as carry_out:
        found = carry_out(explain_token, presented, caller_id)
    record = dict(as_record(found))
    if not as_json:
        claims = record.pop("claims") or {}
        record = _without_empty({**record, **claims})
    print_record(record, as_json=as_json)


def _without_empty(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is False or value}


explain = add_all(
    Commands("explain", help="Explain a request or a token; nothing is issued."), [request, token]
)
