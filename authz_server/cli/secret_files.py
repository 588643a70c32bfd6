"""Options that read and write secrets; a secret is never an argument."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from authz_server.operations.private_files import without_line_break

MAXIMUM_SECRET_BYTES = 8_192


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
    """Add the option that writes a generated secret to a file."""
    return click.option(
        "--secret-output",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Write the generated secret to this new file (0600) instead of printing it.",
    )(command)


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
