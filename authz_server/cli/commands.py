"""Command and group classes: shared options, and errors as one sentence."""

import os
import traceback
from collections.abc import Sequence
from typing import Any

import click
import psycopg
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from authz_server.audit.restored_database import RestoredDatabaseError
from authz_server.cli.invocation import Invocation, shared_options
from authz_server.database.errors import describe_failure, find_sentence
from authz_server.database.schema import SchemaError
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError, OAuthError
from authz_server.operations.preflight import StartError
from authz_server.plugin_manager import PluginError
from authz_server.settings import SettingsError
from keys.errors import KeysError

_DATABASE = "See that it runs, that database.url is right, and `authz-server db check`."
_FILE = "See that the file is this server's database, and that the disk has space."


class Command(click.Command):
    """A command that shows an example and takes the shared options after its name, too.

    Args:
        args: as click has them.
        example: a command line as a user types it; a long one is continued by a backslash.
        kwargs: as click has them.
    """

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*args, **kwargs)
        self.example = example
        self.params.extend(shared_options(with_environment=False))

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the description and, below it, the example without wrapping it."""
        super().format_help_text(ctx, formatter)
        if self.example:
            lines = "\n".join(f"    {line}" for line in self.example.splitlines())
            formatter.write(f"\n  Example:\n{lines}\n")


class Commands(click.Group):
    """A group of commands, listed in the order in which they were added."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of adding, which is the order of use."""
        del ctx
        return list(self.commands)


Commands.group_class = Commands


class RootCommands(Commands):
    """The outermost group: whatever goes wrong below leaves as one sentence and a status."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; errors become a sentence unless a traceback was asked for."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.ensure_object(Invocation).debug:
                traceback.print_exc()
            raise click.ClickException(format_error(error)) from error


def format_error(error: Exception) -> str:
    """Return what went wrong and what to do about it, in one line, without secrets."""
    match error:
        case (
            SettingsError()
            | PluginError()
            | NotFoundError()
            | ConflictError()
            | InvalidChangeError()
            | KeysError()
            | RestoredDatabaseError()
            | SchemaError()
            | StartError()
        ):
            sentence = str(error)
        case OAuthError():
            sentence = f"{error.description} {error.detail}".strip()
        case PoolTimeoutError():
            sentence = f"The database gave no connection in time. {_DATABASE}"
        case DBAPIError() | psycopg.Error():
            sentence = _explain_driver(error)
        case ArgumentError() | SQLAlchemyError():
            sentence = f"The database cannot be used: {error}. {_DATABASE}"
        case UnicodeError():
            sentence = "A text that was given is not UTF-8: nothing was changed."
        case OSError():
            where = f" ({os.fspath(error.filename)})" if error.filename else ""
            sentence = f"{error.strerror or error}{where}."
        case _:
            sentence = (
                f"Something unexpected happened ({type(error).__name__}: {error}). "
                "Run the command again with --debug and report what it prints."
            )
    return " ".join(sentence.split())


def _explain_driver(error: DBAPIError | psycopg.Error) -> str:
    """Return what the driver reported, without statement and parameters."""
    if sentence := find_sentence(error):
        return sentence
    reported = describe_failure(error).rstrip(".")
    if _lacks_schema(reported):
        return f"The schema is not this version's ({reported}): run `authz-server db check`."
    files = ", ".join(getattr(getattr(error, "orig", None), "__notes__", ())[:1])
    if files:
        return f"SQLite reports for {files}: {reported}. {_FILE}"
    return f"The database refused or did not answer: {reported}. {_DATABASE}"


def _lacks_schema(reported: str) -> bool:
    # SQLite's words, and PostgreSQL's states for tables and columns that do not exist.
    return any(sign in reported for sign in ("no such table", "no such column", "42P01", "42703"))


def add_all(group: click.Group, commands: Sequence[click.Command]) -> click.Group:
    """Add the commands to the group in this order; return the group."""
    for command in commands:
        group.add_command(command)
    return group
