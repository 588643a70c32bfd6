"""The options that authenticate a command at the server of ``--server``."""

from pathlib import Path

import click

from authz_server.cli.invocation import Invocation

#: An access token for the admin API. It is an option neither here nor elsewhere: other users of a
#: machine can read the arguments of its processes.
TOKEN_VARIABLE = "AUTHZ_SERVER_TOKEN"  # noqa: S105 - the name of a variable

_OPTIONS = {
    "ca-file": (
        "FILE",
        "The certificates to trust with --server, in PEM, instead of the system's.",
    ),
    "token-file": ("FILE", "An access token for --server; - reads it from standard input."),
    "client-id": ("ID", "The client that obtains access tokens for --server."),
    "client-secret-file": ("FILE", "The secret of this client; - reads it from standard input."),
    "private-key-file": ("FILE", "The private key of this client in PEM, for private_key_jwt."),
    "scope": ("TEXT", "The scopes to ask for, instead of those that the command needs."),
    "issuer": ("URL", "The issuer at whose token endpoint this client obtains them."),
}


def access_options() -> list[click.Option]:
    """Return the options, which stand before the command's name."""
    return [
        click.Option(
            [f"--{name}"],
            metavar=metavar,
            type=click.Path(path_type=Path) if name == "ca-file" else str,
            envvar=f"AUTHZ_SERVER_{name.upper().replace('-', '_')}",
            show_envvar=True,
            expose_value=False,
            callback=_keep,
            help=text,
        )
        for name, (metavar, text) in _OPTIONS.items()
    ]


def _keep(context: click.Context, option: click.Parameter, value: object) -> None:
    if value is not None:
        context.ensure_object(Invocation).access[str(option.name)] = value
