"""Read, print and write secrets; a secret is never an argument."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from authz_server.cli.output import print_json
from authz_server.errors import InvalidChangeError
from authz_server.operations.private_files import without_line_break, write_private_file
from authz_server.operations.sealed_secrets import open_recipient

if TYPE_CHECKING:
    from collections.abc import Callable

    from authz_server.operations.client_secrets import NewSecret

MAXIMUM_SECRET_BYTES = 8_192
_MAXIMUM_KEY_BYTES = 65_536
#: Where the context of a command keeps what encrypts its secret.
_SEAL = "authz_server.seal_secret"


def secret_input_options(command: Any) -> Any:  # noqa: ANN401 - a decorator as click writes them
    """Add the three options that import an existing secret."""
    for option in (
        click.option(
            "--secret-file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Import the secret in this file instead of generating one.",
        ),
        click.option("--secret-stdin", is_flag=True, help="Import the secret on standard input."),
        click.option("--secret-prompt", is_flag=True, help="Ask for the secret to import."),
    ):
        command = option(command)
    return command


def secret_output_option(command: Any) -> Any:  # noqa: ANN401 - a decorator as click writes them
    """Add the options that write a generated secret to a file, and that encrypt it."""
    command = click.option(
        "--encrypt-to",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        expose_value=False,
        callback=_keep_recipient,
        help="Encrypt the generated secret (JWE) to the public key in this file: PEM or JWK.",
    )(command)
    return click.option(
        "--secret-output",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Write the generated secret to this new file (0600) instead of printing it.",
    )(command)


def _keep_recipient(context: click.Context, option: click.Parameter, path: Path | None) -> None:
    # Read before anything is made: a secret is shown once.
    if path is None:
        return
    try:
        with path.open("rb") as file:
            seal = open_recipient(file.read(_MAXIMUM_KEY_BYTES))
    except (OSError, InvalidChangeError) as error:
        raise click.BadParameter(f"{path}: {error}", ctx=context, param=option) from error
    context.meta[_SEAL] = seal


def print_secret(
    record: dict[str, Any], secret: NewSecret, output: Path | None, *, as_json: bool
) -> None:
    """Print a new secret once, or write it to a file; encrypted if the command has a recipient.

    Args:
        record: the other fields of the JSON.
        secret: the new secret.
        output: a new file for its value; None: print it.
        as_json: print JSON.
    """
    seal: Callable[[str], str] | None = click.get_current_context().meta.get(_SEAL)
    value = seal(secret.value) if seal and secret.value else secret.value
    if output is not None and value:
        write_private_file(output, value.encode() + b"\n")
        record = {**record, "secret_file": str(output)}
    elif value:
        record = {**record, "secret_jwe" if seal else "secret": value}
    if as_json:
        print_json(record)
    elif "secret_file" in record:
        click.echo(f"The secret {secret.id} is in {output}{', encrypted' if seal else ''}.")
    elif value:
        click.echo(f"Secret {secret.id}, {'encrypted, ' if seal else ''}shown this once:\n{value}")
    else:
        click.echo(f"The imported secret is {secret.id}.")


def read_secret(
    *, secret_prompt: bool, secret_stdin: bool, secret_file: Path | None
) -> bytes | None:
    """Return the imported secret without its trailing line break; None if there is none."""
    if sum((secret_prompt, secret_stdin, secret_file is not None)) > 1:
        raise click.UsageError("Hand the secret over in one way only.")
    if secret_prompt:
        text: str = click.prompt("Secret", hide_input=True, confirmation_prompt=True)
        return text.encode()
    if secret_stdin:
        return without_line_break(sys.stdin.buffer.read(MAXIMUM_SECRET_BYTES + 1))
    if secret_file is not None:
        with secret_file.open("rb") as file:
            return without_line_break(file.read(MAXIMUM_SECRET_BYTES + 1))
    return None


def require_new_file(path: Path | None) -> None:
    """Raise click.ClickException if a file cannot be created."""
    if path is None:
        return
    if path.exists():
        raise click.ClickException(f"{path} exists: name a new file.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise click.ClickException(f"{path.parent} is not a folder that can be written to.")
