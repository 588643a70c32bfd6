"""Options that read and write secrets; a secret is never an argument."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from authz_server.errors import InvalidChangeError
from authz_server.operations.private_files import without_line_break
from authz_server.operations.sealed_secrets import open_recipient

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


def find_seal() -> Callable[[str], str] | None:
    """Return what encrypts a secret to the recipient of this command; None: it is not encrypted."""
    seal: Callable[[str], str] | None = click.get_current_context().meta.get(_SEAL)
    return seal


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
