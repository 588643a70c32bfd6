"""``token``: inspect one token, or revoke it."""

import codecs
import sys
from pathlib import Path

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, json_option, print_change, print_record
from authz_server.errors import InvalidChangeError
from authz_server.operations.tokens import inspect_token, revoke_token, revoke_token_by_id

MAXIMUM_TOKEN_CHARACTERS = 16_384

token_source = click.argument(
    "file", type=click.Path(dir_okay=False, exists=True, path_type=Path), required=False
)


def read_token(file: Path | None) -> str:
    """Return the token in a file; None: read it from standard input, with a prompt at a terminal.

    Raises:
        click.ClickException: there is no token, or the text is too long.
    """
    if file is not None:
        with file.open("rb") as opened:
            content = opened.read(MAXIMUM_TOKEN_CHARACTERS + 1)
    elif sys.stdin.isatty():
        content = str(click.prompt("Token", hide_input=True)).encode()
    else:
        content = sys.stdin.buffer.read(MAXIMUM_TOKEN_CHARACTERS + 1)
    text = content.removeprefix(codecs.BOM_UTF8).decode("ascii", errors="replace").strip()
    if not text or len(text) > MAXIMUM_TOKEN_CHARACTERS:
        raise click.ClickException("There is no token to read: write it to the file or to stdin.")
    return text


@click.command(
    "inspect",
    cls=Command,
    here="it reads the keys in the database",
    example="authz-server token inspect token.txt",
)
@token_source
@json_option
@pass_invocation
def inspect(invocation: Invocation, file: Path | None, as_json: bool) -> None:
    """Show the state and the claims of a token.

    The token is read from FILE, or from standard input. It is never an argument, which other users
    of the machine could read.
    """
    presented = read_token(file)
    with invocation.operations() as carry_out:
        found = carry_out(inspect_token, presented)
    claims = as_record(found.claims) if found.claims else {}
    print_record({"state": found.state, **claims}, as_json=as_json)


@click.command("revoke", cls=Command, remote=True, example="authz-server token revoke token.txt")
@token_source
@click.option("--jti", help="Revoke by this id, as audit records give it, instead of the token.")
@json_option
@pass_invocation
def revoke(invocation: Invocation, file: Path | None, jti: str | None, as_json: bool) -> None:
    """Revoke one token.

    The token is read from FILE, or from standard input. When the command returns, introspection on
    every node answers that it is inactive.
    """
    if jti is not None and file is not None:
        raise click.UsageError("Name a file or --jti, not both.")
    presented = read_token(file) if jti is None else ""
    with invocation.operations() as carry_out:
        try:
            done = (
                carry_out(revoke_token, presented, actor=invocation.actor)
                if jti is None
                else carry_out(revoke_token_by_id, jti, actor=invocation.actor)
            )
        except InvalidChangeError as error:
            raise click.UsageError(str(error)) from error
    sentence = f"The token {done.jti} {'is' if done.changed else 'was already'} revoked."
    print_change(as_record(done), sentence, as_json=as_json)


token = add_all(Commands("token", help="Inspect one token, or revoke it."), [inspect, revoke])
