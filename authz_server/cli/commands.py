"""Command and group classes: shared options, lazy imports and error messages."""

import gc
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar

import click

from authz_server.cli.invocation import (
    CONFIG_VARIABLE,
    DEFAULT_CONFIG,
    SERVER_VARIABLE,
    Invocation,
    shared_options,
)

#: Handlers of errors that refuse characters which the encoding lacks.
_REFUSING = frozenset({"strict", "surrogateescape"})


class Command(click.Command):
    """A command with an example, and with the shared options after its name.

    Args:
        args: the arguments of click.Command.
        example: a command line; a long one is continued by a backslash.
        remote: whether it works with ``--server``: it obtains everything by operations that the
            admin API has.
        here: why another one works on the server's machine alone, for its refusal.
        kwargs: the keyword arguments of click.Command.
    """

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - click's own
        example: str = "",
        remote: bool = False,
        here: str = "",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        self.remote = remote
        self.here = here
        self.params.extend(shared_options(with_environment=False, is_remote=remote))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; one that is missing is asked for only where the command works."""
        try:
            return super().parse_args(ctx, args)
        except click.MissingParameter:
            self._require_place(ctx.ensure_object(Invocation))
            raise

    def _require_place(self, invocation: Invocation) -> None:
        if invocation.server and not self.remote:
            raise click.UsageError(
                f"This command works on the server's machine alone, because {self.here}:"
                f" run it there, without --server and {SERVER_VARIABLE}."
            )

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; with ``--server``, at that server or not at all."""
        invocation = ctx.ensure_object(Invocation)
        if not invocation.server:
            invocation.require_no_access()
            return super().invoke(ctx)
        self._require_place(invocation)
        if invocation.names_actor:
            raise click.UsageError("--actor: with --server, records name the caller of the API.")
        from authz_server.cli.remote.waiting import WaitsForApproval  # noqa: PLC0415

        try:
            return super().invoke(ctx)
        except WaitsForApproval as waiting:
            waiting.show(ctx.params)
            ctx.exit(waiting.EXIT_STATUS)

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
        """Return the names in the order in which they were added."""
        del ctx
        return list(self.commands)


Commands.group_class = Commands


class LazyCommands(Commands):
    """A group that imports a command when it runs, or when its help is shown.

    Only one of the commands runs, and each imports libraries such as a database driver.

    Args:
        args: the arguments of click.Group.
        lazy_commands: the place of each command, ``module:attribute``, and its synopsis, the first
            sentence of its help; by name, in the order of use.
        kwargs: the keyword arguments of click.Group.
    """

    #: Whether the process is this command line alone, which keeps what it imports.
    is_process: ClassVar[bool] = False

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - click's own
        lazy_commands: Mapping[str, tuple[str, str]],
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **kwargs)
        self._lazy_commands = lazy_commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of use, without importing the commands."""
        del ctx
        return list(self._lazy_commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of this name; None if there is none."""
        if cmd_name in self._lazy_commands and cmd_name not in self.commands:
            place, _ = self._lazy_commands[cmd_name]
            self.add_command(self._import(place), cmd_name)
        return super().get_command(ctx, cmd_name)

    def _import(self, place: str) -> Any:  # noqa: ANN401 - a command
        if not self.is_process:
            return resolve_name(place)
        # What is imported is not garbage: to examine it, now and at the end, takes a quarter of
        # the time of a short command.
        gc.disable()
        try:
            return resolve_name(place)
        finally:
            gc.freeze()
            gc.enable()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; for another one, suggest the nearest.

        Click itself suggests commands that are imported.
        """
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches  # noqa: PLC0415 - for an error alone

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not near or args[0].startswith("-"):
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names and synopses, without importing the commands."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._lazy_commands.items()])


class RootCommands(LazyCommands):
    """The root group, which turns every error into one sentence and an exit status.

    It also has the commands of the enabled plugins.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - click's signature
        """Run the command line as the program of this process."""
        LazyCommands.is_process = True
        return super().__call__(*args, **kwargs)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name.

        ``--config`` may follow the name of a plugin's command.
        """
        if args[0] not in self._lazy_commands:
            parts = [part for arg in args for part in arg.split("=", 1)]
            for option, value in pairwise(parts):
                if option == "--config":
                    ctx.ensure_object(Invocation).config = Path(value)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of this name; None if there is none."""
        command = super().get_command(ctx, cmd_name)
        if command is not None or ctx.resilient_parsing:
            return command
        if ctx.ensure_object(Invocation).server:
            ctx.fail(f"No such command {cmd_name!r} works with --server.")
        ctx.ensure_object(Invocation).require_no_access()
        commands, problem = self._find_plugin_commands(ctx)
        if problem:
            ctx.fail(f"No such command {cmd_name!r}, and no plugin can be asked: {problem}")
        return commands.get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names and synopses; only enabled plugins are imported."""
        super().format_commands(ctx, formatter)
        commands, problem = self._find_plugin_commands(ctx)
        lines = [(name, each.get_short_help_str()) for name, each in sorted(commands.items())]
        if lines or problem:
            with formatter.section("Commands of plugins"):
                if problem:
                    formatter.write_text(problem)
                else:
                    formatter.write_dl(lines)

    def _find_plugin_commands(self, ctx: click.Context) -> tuple[Mapping[str, click.Command], str]:
        """Return the commands of plugins, and the problem if they cannot be loaded."""
        from authz_server.cli.plugin_commands import find_plugin_commands  # noqa: PLC0415

        invocation = ctx.find_object(Invocation)
        # Help is shown before the environment is read.
        default = os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG
        config = Path(default) if invocation is None else invocation.config
        try:
            return find_plugin_commands(config, self._lazy_commands), ""
        except Exception as error:  # noqa: BLE001 - described like every other
            from authz_server.cli.errors import format_error  # noqa: PLC0415

            return {}, format_error(error)

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401 - click's signature
        """Run the command line; print all text, even to a terminal that knows few characters."""
        _open_missing_streams()
        # "surrogateescape", in the locale C, refuses other characters just as "strict" does.
        if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors in _REFUSING:
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().main(*args, **extra)
        except OSError as error:
            # The output of --help and --version is written before a command is invoked.
            click.echo(f"Error: {error.strerror or error}.", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; turn an error into a sentence, after its traceback with ``--debug``."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            # Imported here, because it imports the libraries whose errors it describes.
            from authz_server.cli.errors import format_error  # noqa: PLC0415

            if ctx.ensure_object(Invocation).debug:
                traceback.print_exc()
            raise click.ClickException(format_error(error)) from error


def _open_missing_streams() -> None:
    """Open the null device in place of the standard streams that the parent process closed.

    The database or a socket would otherwise get the number of a stream, and its messages.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - open for as long as the process runs


def add_all(group: click.Group, commands: Sequence[click.Command]) -> click.Group:
    """Add the commands to the group in this order; return the group."""
    for command in commands:
        group.add_command(command)
    return group
