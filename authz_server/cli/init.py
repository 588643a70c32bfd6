"""``init``: make the settings, secrets, database and first keys."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from authz_server.cli.commands import Command
from authz_server.cli.errors import format_error
from authz_server.cli.invocation import DEFAULT_CONFIG, Invocation, pass_invocation
from authz_server.cli.output import echo_lines, echo_status, json_option, print_json
from authz_server.cli.proxies import ask_for_proxies, check_proxies, is_at_terminal
from authz_server.errors import InvalidChangeError
from authz_server.operations.installation import Installation, install
from authz_server.operations.installation_options import (
    DEFAULT_PORT,
    MAXIMUM_PORT,
    Difference,
    InstallationOptions,
)
from authz_server.operations.settings_template import Answers
from authz_server.settings import load_settings


@click.command(
    "init",
    cls=Command,
    here="it makes the settings, the secrets and the database",
    example="authz-server init --issuer https://auth.example.org --import g2p-connect",
)
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), required=False)
@click.option("--issuer", help="The issuer URL, such as https://auth.example.org.")
@click.option(
    "--database-url",
    show_default="an SQLite file in the same folder",
    help="The URL of the database. A password in it goes to a file of its own.",
)
@click.option(
    "--database-password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The file with the database's password; the settings refer to it.",
)
@click.option(
    "--development",
    is_flag=True,
    help=f"Set up for trying out: issuer http://127.0.0.1:{DEFAULT_PORT}, or that --port.",
)
@click.option(
    "--port",
    type=click.IntRange(1, MAXIMUM_PORT),
    show_default=str(DEFAULT_PORT),
    help="The port of the public listener.",
)
@click.option(
    "--health-port",
    type=click.IntRange(1, MAXIMUM_PORT),
    show_default="the next after --port",
    help="The port of the health listener.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    metavar="ADDRESS",
    multiple=True,
    callback=check_proxies,
    show_default="asked for at a terminal",
    help="The address or network of a proxy in front. Repeatable.",
)
@click.option(
    "--import",
    "catalogue",
    type=click.Choice(["g2p-connect"]),
    help="Import the scopes of this catalogue.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace the settings file. Secrets, keys and records are never overwritten.",
)
@json_option
@pass_invocation
def init(
    invocation: Invocation,
    /,
    directory: Path | None,
    catalogue: str | None,
    force: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Make settings, secrets, database and first keys.

    They go to DIRECTORY, else to the folder of the settings file. Running it again is safe: it
    lists what exists and makes what is missing. Options that a settings file contradicts are named;
    the exit status is then 1, because the file stays as it is.
    """
    config = invocation.config if directory is None else directory / DEFAULT_CONFIG
    asked = InstallationOptions(**options)
    answers = None
    if force or not config.exists():
        answers = _answers(asked, config.parent, ask=not as_json)
    try:
        done = install(
            config,
            asked,
            answers,
            actor=invocation.actor,
            import_catalogue=catalogue is not None,
        )
    except Exception as error:
        # The failure may be that of an earlier run's settings, such as of a mistyped URL.
        kept = [] if answers else list(asked.differences(load_settings(config), config))
        if not kept:
            raise
        raise click.ClickException(f"{format_error(error)} {_kept(config, kept)}") from error
    for warning in done.warnings:
        echo_status(f"Warning: {warning}")
    if as_json:
        _print_json(config, done)
    else:
        for step in done.steps:
            click.echo(f"  {'made  ' if step.made else 'exists'}  {step.what}")
        echo_lines(_next_steps(config, catalogue).split("\n"))
    if done.differences:
        raise click.ClickException(_kept(config, done.differences))


def _kept(config: Path, differences: Sequence[Difference]) -> str:
    return (
        f"{config} was kept as it is. {'. '.join(map(str, differences))}. "
        "Use --force to replace it, or edit it."
    )


def _answers(asked: InstallationOptions, directory: Path, *, ask: bool) -> Answers:
    try:
        answers = asked.answers(directory)
    except InvalidChangeError as error:
        raise click.UsageError(str(error)) from error
    if ask and not (asked.development or asked.trusted_proxies) and is_at_terminal():
        answers = replace(answers, trusted_proxies=ask_for_proxies())
    return answers


def _print_json(config: Path, done: Installation) -> None:
    steps, differs = map(asdict, done.steps), map(asdict, done.differences)
    print_json({"config": str(config), "steps": list(steps), "differs": list(differs)})


def _next_steps(config: Path, catalogue: str | None) -> str:
    place = "" if config == Path(DEFAULT_CONFIG) else f" --config {config}"
    commands = [
        "serve",
        "resource-server create --name Mapper --identifier URI \\\n      --scope 'mapper/*'",
        "client create --name Ministry --scope mapper/link",
    ]
    if catalogue is None:
        commands.insert(1, "scope import g2p-connect")
    lines = "\n".join(f"  authz-server {command}{place}" for command in commands)
    return (
        f"\nNext:\n{lines}\n\n"
        f"Keep copies of {config.parent / 'secrets'} apart from copies of the database: "
        "neither is of use without the other."
    )
