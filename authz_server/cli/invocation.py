"""The shared state of commands: settings file, actor and services.

The settings and the services are imported when a command uses them; help needs neither.
"""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from authz_server.assembly.operator import OperatorServices
    from authz_server.settings import Settings

CONFIG_VARIABLE = "AUTHZ_SERVER_CONFIG"
DEBUG_VARIABLE = "AUTHZ_SERVER_DEBUG"
DEFAULT_CONFIG = "authz-server.toml"
MAXIMUM_ACTOR_CHARACTERS = 150


@dataclass
class Invocation:
    """One run of the command line.

    Args:
        config: the path of the settings file.
        actor: the recorded actor.
        debug: show tracebacks.
    """

    config: Path = Path(DEFAULT_CONFIG)
    actor: str = field(default_factory=lambda: _actor(_operating_system_user()))
    debug: bool = False

    def settings(self) -> Settings:
        """Return the settings; SettingsError if they cannot be used."""
        from authz_server.settings import load_settings

        return load_settings(self.config)

    @contextmanager
    def services(self) -> Iterator[OperatorServices]:
        """Yield the services on the settings' database."""
        from authz_server.assembly.operator import operator_services

        with operator_services(self.settings()) as services:
            yield services


#: Passes the invocation to a command, as its first argument.
pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


def _operating_system_user() -> str:
    """Return the name of the user that runs the command, or its number if it has no name."""
    # The environment, which the caller controls, is not used.
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _actor(name: str) -> str:
    """Return the recorded actor: the name, and the way by which the act came in."""
    return f"operator:{name} via cli"


def _named_actor(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    if not value.isprintable() or not 1 <= len(value) <= MAXIMUM_ACTOR_CHARACTERS:
        raise click.BadParameter(f"use 1 to {MAXIMUM_ACTOR_CHARACTERS} printable characters")
    context.ensure_object(Invocation).actor = _actor(value.removeprefix("operator:"))


def _set(field: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def remember(context: click.Context, _parameter: click.Parameter, value: object) -> None:
        if value is not None:
            setattr(context.ensure_object(Invocation), field, value)

    return remember


def shared_options(*, with_environment: bool) -> list[click.Option]:
    """Return the options that may stand before or after the command's name."""
    return [
        click.Option(
            ["--config"],
            type=click.Path(dir_okay=False, path_type=Path),
            envvar=CONFIG_VARIABLE if with_environment else None,
            # Before --help, which lists the commands of its plugins.
            is_eager=with_environment,
            expose_value=False,
            callback=_set("config"),
            show_default=f"${CONFIG_VARIABLE} or ./{DEFAULT_CONFIG}",
            help="The settings file.",
        ),
        click.Option(
            ["--actor"],
            expose_value=False,
            callback=_named_actor,
            show_default="the user of the system",
            help="The operator that records of the change name.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            flag_value=True,
            default=None,
            envvar=DEBUG_VARIABLE if with_environment else None,
            expose_value=False,
            callback=_set("debug"),
            help="Show the traceback of an error.",
        ),
    ]
