"""The shared state of commands: settings file, actor and services.

The settings and the services are imported when a command uses them; help needs neither.
"""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from authz_server.assembly.operator import OperatorServices
    from authz_server.cli.remote.operations import RemoteOperations
    from authz_server.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

CONFIG_VARIABLE = "AUTHZ_SERVER_CONFIG"
SERVER_VARIABLE = "AUTHZ_SERVER_URL"
DEBUG_VARIABLE = "AUTHZ_SERVER_DEBUG"
DEFAULT_CONFIG = "authz-server.toml"
MAXIMUM_ACTOR_CHARACTERS = 150
#: The options that authenticate a command at a server: by name, their value and their help.
_ACCESS_OPTIONS = {
    "ca-file": (
        "FILE",
        "The certificates to trust with --server, in PEM, instead of the system's.",
    ),
    "token-file": (
        "FILE",
        "A token for --server, instead of $AUTHZ_SERVER_TOKEN; - reads it from standard input.",
    ),
    "client-id": ("ID", "The client that obtains access tokens for --server."),
    "client-secret-file": ("FILE", "The secret of this client; - reads it from standard input."),
    "private-key-file": ("FILE", "The private key of this client in PEM, for private_key_jwt."),
    "certificate-file": (
        "FILE",
        "The certificate of this client in PEM, for TLS; the private key may be in the same file.",
    ),
    "certificate-key-file": ("FILE", "The private key of this certificate in PEM."),
    "scope": ("TEXT", "The scopes to ask for, instead of those that the command needs."),
    "issuer": ("URL", "The issuer at whose token endpoint this client obtains them."),
}
#: Those whose files the TLS library reads by itself: not from standard input.
_TLS_OPTIONS = frozenset({"ca-file", "certificate-file", "certificate-key-file"})


class Operations(Protocol):
    """Carries out operations for a command: on the database, or at a server by its admin API."""

    def __call__(
        self, operation: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return the result of an operation.

        Args:
            operation: a function of :mod:`authz_server.operations`, whose first argument are the
                services.
            args: its further arguments.
            kwargs: its arguments by name.
        """
        ...


@dataclass
class Invocation:
    """One run of the command line.

    Args:
        config: the path of the settings file.
        actor: the recorded actor.
        names_actor: whether an option names the actor.
        debug: show tracebacks.
        server: the URL of the server whose admin API carries the command out; empty: the command
            works on the database of the settings.
        access: the values of the options that authenticate the command at the server, by name.
        given_access: those of these options that the command line has, not the environment.
        relative_times: those times of the command line that count from the present.
    """

    config: Path = Path(DEFAULT_CONFIG)
    actor: str = field(default_factory=lambda: _actor(_operating_system_user()))
    names_actor: bool = False
    debug: bool = False
    server: str = ""
    access: dict[str, Any] = field(default_factory=dict)
    given_access: list[str] = field(default_factory=list)
    relative_times: list[datetime] = field(default_factory=list)
    _remote: RemoteOperations | None = None
    _warnings: set[str] = field(default_factory=set)

    def warn(self, sentence: str) -> None:
        """Print a warning to standard error, once in a run."""
        if sentence not in self._warnings:
            self._warnings.add(sentence)
            from authz_server.cli.output import echo_status

            echo_status(sentence)

    def settings(self) -> Settings:
        """Return the settings; SettingsError if they cannot be used."""
        from authz_server.settings import load_settings

        return load_settings(self.config)

    @contextmanager
    def services(self) -> Iterator[OperatorServices]:
        """Yield the services on the settings' database."""
        from authz_server.assembly.operator import operator_services

        with operator_services(self.settings(), warn=self.warn) as services:
            yield services

    @contextmanager
    def operations(self) -> Iterator[Operations]:
        """Yield what carries out operations: here, or at the server that an option names."""
        if self.server:
            yield self._at_server()
            return
        with self.services() as services:

            def carry_out(
                operation: Callable[Concatenate[Any, P], T],
                /,
                *args: P.args,
                **kwargs: P.kwargs,
            ) -> T:
                if self.relative_times:
                    kwargs.update(self._corrected(services, kwargs))
                return operation(services, *args, **kwargs)

            yield carry_out

    def _corrected(self, services: OperatorServices, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments whose relative times count from the present of the database's clock."""
        correction = services.clock_correction
        return {
            name: value + correction if value in self.relative_times else value
            for name, value in values.items()
        }

    def require_here(self, option: str) -> None:
        """Raise click.UsageError if the command works at another server.

        Args:
            option: the option, or the name of the arguments, that works on the server alone.
        """
        if self.server:
            raise click.UsageError(f"{option}: works on the server's machine alone.")

    def require_no_access(self) -> None:
        """Raise click.UsageError if a command without a server was meant for one."""
        if self.given_access:
            raise click.UsageError(
                f"{', '.join(self.given_access)}: name the server too, by --server or"
                f" {SERVER_VARIABLE}."
            )
        if os.environ.get(SERVER_VARIABLE) == "":
            raise click.UsageError(
                f"{SERVER_VARIABLE} is empty: name the URL of a management listener, or unset it to"
                " work on this machine."
            )

    def _at_server(self) -> RemoteOperations:
        if self._remote is None:
            from authz_server.cli.remote.operations import open_remote_operations

            self._remote = open_remote_operations(self.server, self.access)
        return self._remote


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
    invocation = context.ensure_object(Invocation)
    invocation.actor = _actor(value.removeprefix("operator:"))
    invocation.names_actor = True


def _named_server(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    if not value:
        raise click.BadParameter("name the URL of a management listener")
    context.ensure_object(Invocation).server = value


def _set(field: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def remember(context: click.Context, _parameter: click.Parameter, value: object) -> None:
        if value is not None:
            setattr(context.ensure_object(Invocation), field, value)

    return remember


def shared_options(*, with_environment: bool, is_remote: bool = True) -> list[click.Option]:
    """Return the options that may stand before or after the command's name.

    Args:
        with_environment: whether variables of the environment stand for them.
        is_remote: whether the help shows ``--server``.
    """
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
            ["--server"],
            metavar="URL",
            envvar=SERVER_VARIABLE if with_environment else None,
            show_envvar=with_environment,
            expose_value=False,
            hidden=not is_remote,
            callback=_named_server,
            help="Work through the admin API of the server at this URL.",
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


def access_options() -> list[click.Option]:
    """Return the options that authenticate a command at a server; they stand before its name."""
    return [
        click.Option(
            [f"--{name}"],
            metavar=metavar,
            type=click.Path(path_type=Path) if name in _TLS_OPTIONS else str,
            envvar=f"AUTHZ_SERVER_{name.upper().replace('-', '_')}",
            show_envvar=True,
            expose_value=False,
            callback=_keep_access,
            help=text,
        )
        for name, (metavar, text) in _ACCESS_OPTIONS.items()
    ]


def _keep_access(context: click.Context, option: click.Parameter, value: object) -> None:
    if value is None:
        return
    invocation, name = context.ensure_object(Invocation), str(option.name)
    invocation.access[name] = value
    if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        invocation.given_access.append(option.opts[0])
