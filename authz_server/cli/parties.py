"""The commands that clients and resource servers share: show, enable, disable, delete, secrets."""

import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.cli.commands import Command, Commands
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import (
    echo_status,
    json_option,
    print_change,
    print_record,
    print_rows,
    timestamp,
)
from authz_server.cli.secret_files import (
    read_secret,
    require_new_file,
    secret_input_options,
    secret_output_option,
    write_private_file,
)
from authz_server.cli.values import INSTANT
from authz_server.clients.models import Client, ClientSecret
from authz_server.clients.rules import AUTHENTICATION_METHODS
from authz_server.database.orm import transaction

PAGE = 500


def authentication_method_option(default: str | None = None) -> Callable[[Any], Any]:
    """Return the option ``--authentication-method``.

    Args:
        default: the method of a new party; None where the method stays as it is.
    """
    return click.option(
        "--authentication-method",
        type=click.Choice(AUTHENTICATION_METHODS),
        default=default,
        show_default=default is not None,
        help="client_secret permits Basic and the form; the others permit that one alone.",
    )


def all_of_kind(services: Services, session: Session, kind: str) -> Iterator[Client]:
    """Yield every party of a kind by id."""
    after = None
    while page := services.clients.list_clients(session, kind=kind, after=after, limit=PAGE):
        yield from page
        after = page[-1].id


def state_of(client: Client, now: datetime) -> str:
    """Return ``enabled``, ``disabled``, ``expired`` or ``not yet``."""
    if not client.enabled:
        return "disabled"
    if client.expires_at is not None and client.expires_at <= now:
        return "expired"
    if client.starts_at is not None and client.starts_at > now:
        return "not yet"
    return "enabled"


def describe_secret(secret: ClientSecret, now: datetime) -> dict[str, Any]:
    """Return what may be shown of a secret; never its record."""
    ends = [end for end in (secret.ended_at, secret.expires_at) if end is not None]
    return {
        "id": secret.id,
        "description": secret.description,
        "imported": secret.record.startswith("argon2id$"),
        "works": all(end > now for end in ends),
        "created_at": timestamp(secret.created_at),
        "ends_at": timestamp(min(ends, default=None)),
        "last_used_at": timestamp(secret.last_used_at),
    }


_SECRET_COLUMNS = {
    "id": "Id",
    "description": "Description",
    "works": "Works",
    "imported": "Imported",
    "created_at": "Created",
    "ends_at": "Ends",
    "last_used_at": "Last used",
}


def print_secret(
    record: dict[str, Any], secret: str, output: Path | None, *, as_json: bool
) -> None:
    """Show a new secret once, or write it to a file; ``record`` is printed with it as JSON."""
    if output is not None and secret:
        write_private_file(output, secret.encode() + b"\n")
        record = {**record, "secret_file": str(output)}
    elif secret:
        record = {**record, "secret": secret}
    if as_json:
        print_change(record, "", as_json=True)
    elif "secret_file" in record:
        click.echo(f"The secret {record['secret_id']} is in {output}.")
    elif secret:
        click.echo(f"Secret {record['secret_id']}, shown this once:\n{secret}")
    else:
        click.echo(f"The imported secret is {record['secret_id']}.")


def party_commands(
    noun: str,
    kind: str,
    describe: Callable[..., dict[str, Any]],
    show: click.Command | None = None,
) -> list[click.Command]:
    """Return show, enable, disable, delete and secret for one kind of party.

    Args:
        noun: as messages call it.
        kind: as the table calls it.
        describe: makes the record that ``show`` prints from services, session and party.
        show: a ``show`` that prints more than the record.
    """
    return [
        show or _show(noun, kind, describe),
        _switch(noun, kind, enabled=True),
        _switch(noun, kind, enabled=False),
        _delete(noun, kind),
        _secret_commands(noun, kind),
    ]


def _show(noun: str, kind: str, describe: Callable[..., dict[str, Any]]) -> click.Command:
    @click.command("show", cls=Command, help=f"Show one {noun}.")
    @click.argument("id")
    @json_option
    @pass_invocation
    def show(invocation: Invocation, id: str, as_json: bool) -> None:  # noqa: A002
        with invocation.services() as services, transaction() as session:
            party = services.clients.get_client(session, id, kind=kind)
            print_record(describe(services, session, party), as_json=as_json)

    return show


def _switch(noun: str, kind: str, *, enabled: bool) -> click.Command:
    verb = "enable" if enabled else "disable"
    text = f"Let a {noun} work again." if enabled else f"Stop a {noun} within a second, everywhere."
    if kind == "client":
        text += f" {_TOKENS[enabled]}"

    @click.command(verb, cls=Command, help=text)
    @click.argument("id")
    @pass_invocation
    def switch(invocation: Invocation, id: str, revoke_tokens: bool = False) -> None:  # noqa: A002
        with invocation.change() as (services, session):
            services.clients.get_client(session, id, kind=kind)
            services.clients.set_enabled(
                session,
                id,
                actor=invocation.actor,
                enabled=enabled,
                revoke_tokens=revoke_tokens,
            )
        told = f"The {noun} {id} is {verb}d."
        if revoke_tokens:
            told += " Its tokens issued until now are revoked."
        elif kind == "client":
            told += f" {_TOKENS[enabled]}"
        click.echo(told)

    if kind == "client":
        option = "--revoke-earlier" if enabled else "--revoke"
        switch.params.insert(
            1,
            click.Option(
                [option, "revoke_tokens"],
                is_flag=True,
                help="Revoke the tokens that it was issued until now.",
            ),
        )
    return switch


#: What becomes of a client's tokens, by whether it is enabled or disabled.
_TOKENS = {
    True: (
        "Its tokens from before it was disabled are active again until they expire; "
        "--revoke-earlier ends them for good."
    ),
    False: (
        "Its tokens are inactive at introspection, and active again when it is enabled before "
        "they expire; --revoke ends them for good."
    ),
}


def _delete(noun: str, kind: str) -> click.Command:
    @click.command("delete", cls=Command, help=f"Delete a {noun} and its secrets.")
    @click.argument("id")
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @pass_invocation
    def delete(invocation: Invocation, id: str, yes: bool) -> None:  # noqa: A002
        with invocation.services() as services:
            with transaction() as session:
                name = services.clients.get_client(session, id, kind=kind).name
            if not yes:
                click.confirm(f"Delete the {noun} {id} ({name})?", abort=True, err=True)
            with transaction() as session:
                services.clients.delete_client(session, id, actor=invocation.actor)
        click.echo(f"The {noun} {id} is deleted.")

    return delete


def _secret_commands(noun: str, kind: str) -> click.Command:
    group = Commands("secret", help=f"Secrets of a {noun}: add, list, end.")
    for command in (_secret_add(noun, kind), _secret_list(noun, kind), _secret_end(noun, kind)):
        group.add_command(command)
    return group


def _secret_add(noun: str, kind: str) -> click.Command:
    @click.command(
        "add",
        cls=Command,
        help=f"Give a {noun} one more secret; the others go on working until they are ended.",
    )
    @click.argument("id")
    @click.option("--description", default="", help="What it is for.")
    @click.option("--expires", type=INSTANT, help="When it stops working.")
    @secret_input_options
    @secret_output_option
    @json_option
    @pass_invocation
    def add(  # noqa: PLR0913, PLR0917 - one for each option
        invocation: Invocation,
        /,
        id: str,  # noqa: A002
        description: str,
        expires: datetime | None,
        secret_output: Path | None,
        as_json: bool,
        **ways: Any,  # noqa: ANN401
    ) -> None:
        imported = read_secret(**ways)
        require_new_file(secret_output)
        with invocation.change() as (services, session):
            services.clients.get_client(session, id, kind=kind)
            secret, generated = services.clients.add_secret(
                session,
                id,
                actor=invocation.actor,
                description=description,
                expires_at=expires,
                imported_secret=imported,
            )
        record = {"id": id, "secret_id": secret.id, "expires_at": timestamp(secret.expires_at)}
        print_secret(record, generated, secret_output, as_json=as_json)

    return add


def _secret_list(noun: str, kind: str) -> click.Command:
    @click.command("list", cls=Command, help=f"List the secrets of a {noun}, ended ones too.")
    @click.argument("id")
    @json_option
    @pass_invocation
    def list_(invocation: Invocation, id: str, as_json: bool) -> None:  # noqa: A002
        with invocation.services() as services, transaction() as session:
            party = services.clients.get_client(session, id, kind=kind)
            now = services.clock()
            rows = [describe_secret(secret, now) for secret in party.secrets]
            print_rows(rows, _SECRET_COLUMNS, as_json=as_json)

    return list_


def _secret_end(noun: str, kind: str) -> click.Command:
    @click.command("end", cls=Command, help=f"End a secret of a {noun}, for good.")
    @click.argument("id")
    @click.argument("secret_id")
    @click.option("--at", type=INSTANT, help="When; else now. Gives the old secret an overlap.")
    @click.option("--yes", is_flag=True, help="Do not ask on a terminal if it is the last one.")
    @pass_invocation
    def end(
        invocation: Invocation,
        id: str,  # noqa: A002
        secret_id: str,
        at: datetime | None,
        yes: bool,
    ) -> None:
        with invocation.services() as services:
            now = services.clock()
            with transaction() as session:
                party = services.clients.get_client(session, id, kind=kind)
                last = _is_last(party, secret_id, at or now, now)
            if last and not yes and sys.stdin.isatty():
                _confirm_last(noun, id, at)
            with transaction() as session:
                secret = services.clients.end_secret(
                    session, id, secret_id, actor=invocation.actor, at=at
                )
                ends_at = timestamp(secret.ended_at or secret.expires_at)
        click.echo(f"The secret {secret_id} ends at {ends_at}.")

    return end


def _is_last(party: Client, secret_id: str, at: datetime, now: datetime) -> bool:
    """Return whether no other secret works when one ends at ``at``."""
    others = [each for each in party.secrets if each.id != secret_id]
    return not any(
        all(end > max(at, now) for end in (each.ended_at, each.expires_at) if end is not None)
        for each in others
    )


def _confirm_last(noun: str, id: str, at: datetime | None) -> None:  # noqa: A002
    when = f"from {timestamp(at)} on" if at else "from now on"
    echo_status(
        f"No other secret of the {noun} {id} works then: {when} it gets no answer but 401. "
        "Tokens that it was issued stay as they are."
        if noun == "client"
        else f"No other secret of the {noun} {id} works then: {when} its introspection is refused."
    )
    click.confirm("End its last secret?", abort=True, err=True)


def expand_scopes(services: Services, session: Session, names: Sequence[str]) -> list[str]:
    """Return scope names with each trailing ``/*`` replaced by what the catalogue has there now.

    Raises:
        click.ClickException: there is nothing under it.
    """
    expanded: list[str] = []
    for name in names:
        if not name.endswith("/*"):
            expanded.append(name)
            continue
        below = [
            scope.name
            for scope in services.scopes.list_scopes(session)
            if scope.name.startswith(name[:-1])
        ]
        if not below:
            raise click.ClickException(
                f"The catalogue has no scope under {name!r}. "
                "`authz-server scope import g2p-connect` brings those of G2P Connect."
            )
        expanded.extend(below)
    return list(dict.fromkeys(expanded))
