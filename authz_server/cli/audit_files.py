"""The files of records that the commands of ``audit`` read."""

from pathlib import Path

import click

from authz_server.cli.invocation import Invocation

#: The reason why tokens and refusals are not known.
NO_FILE = "There is no file of audit records here (audit.destination)."
FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
files_option = click.option(
    "--file",
    "files",
    type=FILE,
    multiple=True,
    show_default="that of the settings, with the rotated ones",
    help="A file of audit records, the oldest first. Repeatable.",
)


def require_files_here(invocation: Invocation, files: tuple[Path, ...]) -> None:
    """Raise click.UsageError if files are named for a command that works at a server."""
    if files:
        invocation.require_here("Files of records")
