"""Commands of clients and resource servers: show, enable, disable and delete."""

from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import (
    echo_lines,
    echo_status,
    json_option,
    print_json,
    print_record,
)
from authz_server.cli.secret import Noun
from authz_server.cli.secret_files import print_secret
from authz_server.cli.values import PROPERTY
from authz_server.clients.secrets import CLIENT_SECRET_JWT
from authz_server.operations.client_secrets import NewSecret
from authz_server.operations.client_views import ClientView
from authz_server.operations.clients import delete_client, set_enabled
from authz_server.operations.resource_servers import ResourceServerView

F = TypeVar("F", bound=Callable[..., Any])

#: The effect on the client's tokens; True: it is enabled, False: it is disabled.
_TOKENS = {
    True: (
        "Its tokens from before it was disabled are active again until they expire; "
        "--revoke-earlier ends them permanently."
    ),
    False: (
        "Its tokens are inactive at introspection, and active again when it is enabled before "
        "they expire; --revoke ends them permanently."
    ),
}


def authentication_method_option(default: str | None = None) -> Callable[[Any], Any]:
    """Return the option ``--authentication-method``.

    Args:
        default: the method of a new registration; None: the method does not change.
    """
    return click.option(
        "--authentication-method",
        metavar="METHOD",
        default=default,
        show_default=default is not None,
        help="How it authenticates: client_secret (Basic and the form), client_secret_basic or "
        "client_secret_post alone, client_secret_jwt, private_key_jwt, tls_client_auth, "
        "self_signed_tls_client_auth, or a method of a plugin.",
    )


def _read_file(context: click.Context, option: click.Parameter, path: str | None) -> object:
    return None if path is None else PROPERTY.convert(f"jwks=@{path}", option, context)[1]


def property_options(command: F) -> F:
    """Add ``--set``, ``--jwks`` and ``--jwks-uri``, whose values are one dictionary by name."""

    @wraps(command)
    def with_properties(
        *args: Any,  # noqa: ANN401 - those of the command
        properties: tuple[tuple[str, Any], ...],
        jwks: Any,  # noqa: ANN401 - JSON
        jwks_uri: str | None,
        **options: Any,  # noqa: ANN401 - likewise
    ) -> Any:  # noqa: ANN401 - likewise
        if jwks is not None and jwks_uri is not None:
            raise click.UsageError("Use --jwks or --jwks-uri.")
        given = dict(properties)
        if jwks is not None:
            given |= {"jwks_uri": None, "jwks": jwks}
        if jwks_uri is not None:
            given |= {"jwks": None, "jwks_uri": jwks_uri}
        return command(*args, properties=given, **options)

    for option in _PROPERTY_OPTIONS:
        with_properties = option(with_properties)
    return cast("F", with_properties)


#: The last one comes first in the help.
_PROPERTY_OPTIONS = (
    click.option(
        "--set",
        "properties",
        type=PROPERTY,
        multiple=True,
        metavar="NAME=VALUE",
        help="An optional property, as JSON or text; @FILE reads it, none removes it. Repeatable.",
    ),
    click.option(
        "--jwks-uri",
        metavar="URL",
        help="Where it publishes its public keys; replaces registered keys.",
    ),
    click.option(
        "--jwks",
        metavar="FILE",
        callback=_read_file,
        help="The JWK set with its public keys; replaces the present keys and their address.",
    ),
)


def warn_of_missing_keys(view: ClientView | ResourceServerView) -> None:
    """Print a warning if the party cannot authenticate before its keys are registered."""
    method = view.authentication_method
    uses_keys = method in {"private_key_jwt", "self_signed_tls_client_auth"}
    if uses_keys and view.properties.keys().isdisjoint({"jwks", "jwks_uri"}):
        echo_status(f"Warning: {view.id} has no keys yet: register them by --jwks or --jwks-uri.")


def warn_of_earlier_secrets(noun: Noun, party_id: str, changes: Mapping[str, Any]) -> None:
    """Print a warning if the method of a change needs a new secret."""
    if changes.get("authentication_method") == CLIENT_SECRET_JWT:
        echo_status(
            "Warning: secrets made for another method sign no assertions: "
            f"`authz-server {noun.command} secret add {party_id}` makes one that does."
        )


def print_created(
    noun: Noun,
    record: dict[str, Any],
    secret: NewSecret | None,
    output: Path | None,
    *,
    as_json: bool,
) -> None:
    """Print that something is registered, and its secret if it has one.

    Args:
        noun: its kind.
        record: its id and the other fields of the JSON.
        secret: its secret.
        output: the file for the secret; None: print it.
        as_json: print JSON.
    """
    if not as_json:
        click.echo(f"The {noun.name} {record['id']} is registered.")
    if secret is not None:
        print_secret(record | {"secret_id": secret.id}, secret, output, as_json=as_json)
    elif as_json:
        print_json(record)


def show_command(noun: Noun) -> click.Command:
    """Return ``show`` of a noun."""

    @click.command(
        "show",
        cls=Command,
        remote=True,
        help=f"""Show one {noun.name}.

        Secrets are listed by id and dates, without their values.
        """,
        example=f"authz-server {noun.command} show {noun.example}",
    )
    @click.argument("id")
    @json_option
    @pass_invocation
    def show(invocation: Invocation, id: str, as_json: bool) -> None:  # noqa: A002
        with invocation.operations() as carry_out:
            view = carry_out(noun.get, id)
        print_record(view, as_json=as_json)

    return show


def switch_commands(noun: Noun) -> list[click.Command]:
    """Return ``enable`` and ``disable`` of a noun."""
    return [_switch(noun, enabled=True), _switch(noun, enabled=False)]


def _switch(noun: Noun, *, enabled: bool) -> click.Command:
    verb = "enable" if enabled else "disable"
    effect = "It can authenticate again" if enabled else "Its requests are refused"
    text = f"{verb.capitalize()} a {noun.name}.\n\n{effect} on every node within a second."
    is_client = noun.kind == "client"
    if is_client:
        text += f" {_TOKENS[enabled]}"

    @click.command(
        verb,
        cls=Command,
        remote=True,
        help=text,
        example=f"authz-server {noun.command} {verb} {noun.example}",
    )
    @click.argument("id")
    @pass_invocation
    def switch(invocation: Invocation, id: str, revoke_tokens: bool = False) -> None:  # noqa: A002
        with invocation.operations() as carry_out:
            done = carry_out(
                set_enabled,
                id,
                kind=noun.kind,
                actor=invocation.actor,
                enabled=enabled,
                revoke_tokens=revoke_tokens,
            )
        sentence = f"The {noun.name} {id} is {verb}d."
        if done.tokens_revoked:
            sentence += " Its tokens issued until now are revoked."
        elif is_client:
            sentence += f" {_TOKENS[enabled]}"
        echo_lines([sentence])

    if is_client:
        option = click.Option(
            ["--revoke-earlier" if enabled else "--revoke", "revoke_tokens"],
            is_flag=True,
            help="Revoke the tokens that it was issued until now.",
        )
        switch.params.insert(1, option)
    return switch


def delete_command(noun: Noun) -> click.Command:
    """Return ``delete`` of a noun."""
    consequence = (
        "Its tokens end with it."
        if noun.kind == "client"
        else "Its tokens end with it. Its scopes lose their owner: requests for them are refused."
    )

    @click.command(
        "delete",
        cls=Command,
        remote=True,
        help=f"""Delete a {noun.name} and its secrets.

        {consequence} The command asks first, unless --yes is given.
        """,
        example=f"authz-server {noun.command} delete {noun.example} --yes",
    )
    @click.argument("id")
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @pass_invocation
    def delete(invocation: Invocation, id: str, yes: bool) -> None:  # noqa: A002
        with invocation.operations() as carry_out:
            name = carry_out(noun.get, id).name
            if not yes:
                click.confirm(f"Delete the {noun.name} {id} ({name})?", abort=True, err=True)
            carry_out(delete_client, id, kind=noun.kind, actor=invocation.actor)
        click.echo(f"The {noun.name} {id} is deleted.")

    return delete
