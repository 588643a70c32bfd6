"""Command and group classes: shared options, lazy imports, and errors as one sentence."""

import traceback
from collections.abc import Mapping, Sequence
from pkgutil import resolve_name
from typing import Any

import click

from authz_server.cli.invocation import Invocation, shared_options


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


class LazyCommands(Commands):
    """A group that imports a command when it is run or its own help is asked for.

    One command of many runs, and each imports what it uses: a database driver, a table writer.

    Args:
        args: as click has them.
        lazy_commands: where each command is, as ``module:attribute``, and its synopsis, the first
            sentence of its help; by name, in the order of use.
        kwargs: as click has them.
    """

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - click's own
        lazy_commands: Mapping[str, tuple[str, str]],
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **kwargs)
        self._lazy_commands = lazy_commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of use; imports none of them."""
        del ctx
        return list(self._lazy_commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name, imported; None where there is none."""
        if cmd_name in self._lazy_commands and cmd_name not in self.commands:
            place, _ = self._lazy_commands[cmd_name]
            self.add_command(resolve_name(place), cmd_name)
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names and synopses; imports none of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._lazy_commands.items()])


class RootCommands(LazyCommands):
    """The outermost group: whatever goes wrong below leaves as one sentence and a status."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; errors become a sentence unless a traceback was asked for."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            # Imports the libraries whose errors it describes.
            from authz_server.cli.errors import format_error  # noqa: PLC0415

            if ctx.ensure_object(Invocation).debug:
                traceback.print_exc()
            raise click.ClickException(format_error(error)) from error


def add_all(group: click.Group, commands: Sequence[click.Command]) -> click.Group:
    """Add the commands to the group in this order; return the group."""
    for command in commands:
        group.add_command(command)
    return group
