"""``import``: make a declarative file of another system's clients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.export import format_option, output_option, write_text
from authz_server.cli.output import echo_status
from authz_server.cli.plain_text import shown
from authz_server.operations.declarative.csv_file import import_csv
from authz_server.operations.declarative.export import Format
from authz_server.operations.declarative.imported import Imported
from authz_server.operations.declarative.keycloak import import_keycloak
from keys.plurals import counted

_SECRETS_OPTION = click.option(
    "--secret-directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the secrets of the source to new files (0600) of this folder, for `apply "
    "--imported-secrets`.",
)


def _source(name: str) -> Callable[[Any], Any]:
    return click.argument(name, type=click.Path(dir_okay=False, path_type=Path))


@click.command(
    "keycloak",
    cls=Command,
    remote=True,
    example="authz-server import keycloak realm.json --output registrations.toml",
)
@_source("realm")
@format_option
@output_option
@_SECRETS_OPTION
def keycloak(realm: Path, form: Format, output: Path | None, secret_directory: Path | None) -> None:
    """Write the clients of a Keycloak realm to a file.

    REALM is an export of Keycloak in JSON. Clients with a service account and the client scopes
    that they have are written for `authz-server apply`; standard error reports what does not carry
    over, such as public clients, redirect URIs and mappers. Nothing is changed on the server.
    """
    _write(import_keycloak(realm), form, output, secret_directory)


@click.command(
    "csv",
    cls=Command,
    remote=True,
    example="authz-server import csv clients.csv --output registrations.toml",
)
@_source("file")
@format_option
@output_option
@_SECRETS_OPTION
def csv(file: Path, form: Format, output: Path | None, secret_directory: Path | None) -> None:
    """Write the clients of a CSV file to a file.

    The header names the fields: id, name, organisation, authentication_method, allowed_scopes and
    so forth, or the members of RFC 7591. Lists are separated by blanks. Standard error reports
    what does not carry over. Nothing is changed on the server.
    """
    _write(import_csv(file), form, output, secret_directory)


def _write(
    imported: Imported, form: Format, output: Path | None, secret_directory: Path | None
) -> None:
    text = imported.write(form)
    if secret_directory is not None:
        written = counted(
            imported.write_secrets(secret_directory), "secret is written", "secrets are written"
        )
        echo_status(f"{written} to {secret_directory}.")
    elif imported.secrets:
        left = counted(len(imported.secrets), "secret is", "secrets are")
        echo_status(f"{left} left out; with --secret-directory, files have them.")
    write_text(text, output)
    for note in imported.notes:
        echo_status(f"{shown(note.subject)}: {shown(note.text)}")
    counts = {name: len(entries) for name, entries in imported.sections.items()}
    clients = counted(counts["clients"], "client")
    scopes = counted(counts.get("scopes", 0), "scope")
    notes = counted(len(imported.notes), "note")
    echo_status(f"{clients} and {scopes} are in the file; {notes}.")


import_ = add_all(
    Commands("import", help="Make a declarative file of another system's clients."),
    [keycloak, csv],
)
