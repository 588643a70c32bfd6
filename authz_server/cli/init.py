"""``init``: everything that a server needs before it can start."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from authz_server.app import create_first_keys, operator_services
from authz_server.cli.commands import Command
from authz_server.cli.init_options import (
    DATABASE_PASSWORD,
    DEFAULT_PORT,
    MAXIMUM_PORT,
    InitOptions,
)
from authz_server.cli.invocation import DEFAULT_CONFIG, Invocation, pass_invocation
from authz_server.cli.output import echo_status, json_option, print_json
from authz_server.cli.proxies import ask_for_proxies, check_proxies, is_at_terminal
from authz_server.cli.secret_files import without_line_break, write_private_file
from authz_server.cli.settings_template import Answers, render_settings
from authz_server.database.orm import transaction
from authz_server.database.schema import read_schema, upgrade_database
from authz_server.operations.settings import find_warnings
from authz_server.scopes.g2p_connect import CATALOGUE
from authz_server.settings import Settings, load_settings

SECRET_FILES: dict[str, Callable[[], str]] = {
    "pepper": lambda: secrets.token_urlsafe(48),
    "key-encryption-key": lambda: secrets.token_hex(32),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that ``init`` saw to: what it is, and whether it was there already."""

    what: str
    made: bool


def prepare_directory(
    directory: Path, answers: Answers | None, password: bytes | None = None
) -> Iterator[Step]:
    """Make the secrets and, from ``answers``, the settings file; no secret is overwritten.

    Args:
        directory: where they go.
        answers: what the settings file is to say; None: it stays as it is.
        password: the database's, for a file of its own where ``answers`` names that.

    Raises:
        click.ClickException: there is another password in that file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    folder = directory / "secrets"
    made = not folder.exists()
    folder.mkdir(mode=0o700, exist_ok=True)
    yield Step(f"folder {folder} (0700)", made)
    for name, generate in SECRET_FILES.items():
        path = folder / name
        made = not path.exists()
        if made:
            write_private_file(path, f"{generate()}\n".encode())
        yield Step(f"{name.replace('-', ' ')} {path} (0600)", made)
    if answers is not None and password is not None:
        yield _keep_password(directory / DATABASE_PASSWORD, password)
    config = directory / DEFAULT_CONFIG
    if answers is not None:
        if config.exists():
            config.rename(config.with_suffix(".toml.bak"))
        config.write_text(render_settings(answers), encoding="utf-8")
    yield Step(f"settings file {config}", answers is not None)


def _keep_password(path: Path, password: bytes) -> Step:
    made = not path.exists()
    if made:
        write_private_file(path, password + b"\n")
    elif without_line_break(path.read_bytes()) != password:
        raise click.ClickException(
            f"{path} holds another password than --database-url: change it there, and leave the "
            "password out of the URL."
        )
    return Step(f"database password {path} (0600)", made)


def prepare_database(settings: Settings, *, actor: str, import_catalogue: bool) -> Iterator[Step]:
    """Bring the schema up to date, make the first keys, and the catalogue where asked for."""
    current = read_schema(settings.database, missing_file=True).is_current
    if not current:
        upgrade_database(settings.database)
    yield Step("database schema", not current)
    with operator_services(settings) as services:
        for ring, made in create_first_keys(services, actor=actor).items():
            yield Step(f"signing keys of the ring {ring}", made)
        if import_catalogue:
            with transaction() as session:
                result = services.scopes.import_catalogue(session, CATALOGUE, actor=actor)
            yield Step("scopes of G2P Connect", bool(result.added or result.updated))


@click.command("init", cls=Command)
@click.argument(
    "directory", type=click.Path(file_okay=False, path_type=Path), default=Path(), required=False
)
@click.option("--issuer", help="The issuer URL, such as https://auth.example.org.")
@click.option(
    "--database-url",
    help="Where records are kept; else an SQLite file beside the settings. A password in it goes "
    "to a file of its own.",
)
@click.option(
    "--database-password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The file with the database's password; the settings refer to it.",
)
@click.option(
    "--development",
    is_flag=True,
    help=f"For trying out: issuer http://127.0.0.1:{DEFAULT_PORT}, or that --port, plain http.",
)
@click.option(
    "--port", type=click.IntRange(1, MAXIMUM_PORT), help="Of the public listener; else 8080."
)
@click.option(
    "--health-port",
    type=click.IntRange(1, MAXIMUM_PORT),
    help="Of the health listener; else the next.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    metavar="ADDRESS",
    multiple=True,
    callback=check_proxies,
    help="Address or network of a proxy in front; repeatable. Else asked for at a terminal.",
)
@click.option(
    "--import", "catalogue", type=click.Choice(["g2p-connect"]), help="Import its scopes."
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
    directory: Path,
    catalogue: str | None,
    force: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Make settings, secrets, database and first keys.

    They go to DIRECTORY, else to the present one. Running it again is safe: it lists what exists
    and makes what is missing. Options that a settings file contradicts are named; the exit status
    is then 1, because the file stays as it is.
    """
    config, asked = directory / DEFAULT_CONFIG, InitOptions(**options)
    answers = None
    if force or not config.exists():
        answers = asked.answers(directory)
        if not (asked.development or asked.trusted_proxies or as_json) and is_at_terminal():
            answers = replace(answers, trusted_proxies=ask_for_proxies())
    steps = list(prepare_directory(directory, answers, asked.password()))
    settings = load_settings(config)
    steps += prepare_database(
        settings, actor=invocation.actor, import_catalogue=catalogue is not None
    )
    for warning in find_warnings(settings):
        echo_status(f"Warning: {warning}")
    differences = list(asked.differences(settings, config)) if answers is None else []
    if as_json:
        differs = [asdict(each) for each in differences]
        record = {"config": str(config), "steps": [_plain(step) for step in steps]}
        print_json({**record, "differs": differs})
    else:
        for step in steps:
            click.echo(f"  {'made  ' if step.made else 'exists'}  {step.what}")
        click.echo(_next_steps(config, catalogue))
    if differences:
        raise click.ClickException(
            f"{config} was kept as it is. {'. '.join(map(str, differences))}. "
            "Use --force to replace it, or edit it."
        )


def _plain(step: Step) -> dict[str, object]:
    return {"what": step.what, "made": step.made}


def _next_steps(config: Path, catalogue: str | None) -> str:
    place = "" if config == Path(DEFAULT_CONFIG) else f" --config {config}"
    commands = [
        "serve",
        "resource-server create --name Mapper --identifier URI --scope 'mapper/*'",
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
