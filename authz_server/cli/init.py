"""``init``: everything that a server needs before it can start."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click

from authz_server.app import create_first_keys, operator_services
from authz_server.cli.commands import Command
from authz_server.cli.invocation import DEFAULT_CONFIG, Invocation
from authz_server.cli.output import json_option, print_json, say
from authz_server.cli.parties import pass_invocation
from authz_server.cli.proxies import ask_for_proxies, check_proxies, is_at_terminal
from authz_server.cli.secret_files import write_private_file
from authz_server.cli.settings_template import Answers, render_settings
from authz_server.cli.settings_warnings import find_warnings
from authz_server.database.schema import read_schema, upgrade_database
from authz_server.db import transaction
from authz_server.scopes.g2p_connect import CATALOGUE
from authz_server.settings import RuleError, Settings, SettingsError, load_settings
from authz_server.settings_database import parse_database_url
from authz_server.settings_rules import require_issuer

DEFAULT_PORT = 8080
MAXIMUM_PORT = 65_535
_DEVELOPMENT_ISSUER = f"http://127.0.0.1:{DEFAULT_PORT}"
SECRET_FILES: dict[str, Callable[[], str]] = {
    "pepper": lambda: secrets.token_urlsafe(48),
    "key-encryption-key": lambda: secrets.token_hex(32),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that ``init`` saw to: what it is, and whether it was there already."""

    what: str
    made: bool


def prepare_directory(directory: Path, answers: Answers | None) -> Iterator[Step]:
    """Make the secrets and, from ``answers``, the settings file; no secret is overwritten."""
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
    config = directory / DEFAULT_CONFIG
    if answers is not None:
        if config.exists():
            config.rename(config.with_suffix(".toml.bak"))
        config.write_text(render_settings(answers), encoding="utf-8")
    yield Step(f"settings file {config}", answers is not None)


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
    default="sqlite:///authz-server.db",
    help="Where records are kept; else an SQLite file beside the settings.",
)
@click.option(
    "--development", is_flag=True, help=f"For trying out: issuer {_DEVELOPMENT_ISSUER}, plain http."
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
    help="Write the settings file anew. Secrets, keys and records are never overwritten.",
)
@json_option
@pass_invocation
def init(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    directory: Path,
    issuer: str | None,
    database_url: str,
    development: bool,
    port: int | None,
    health_port: int | None,
    trusted_proxies: tuple[str, ...],
    catalogue: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Make settings, secrets, database and first keys.

    They go to DIRECTORY, else to the present one. Running it again is safe: it says what exists
    and makes what is missing.
    """
    config = directory / DEFAULT_CONFIG
    answers = None
    if force or not config.exists():
        answers = _answers(issuer, database_url, port, health_port, development=development)
        if not (development or trusted_proxies or as_json) and is_at_terminal():
            trusted_proxies = ask_for_proxies()
        answers = replace(answers, trusted_proxies=trusted_proxies)
    steps = list(prepare_directory(directory, answers))
    settings = load_settings(config)
    steps += prepare_database(
        settings, actor=invocation.actor, import_catalogue=catalogue is not None
    )
    for warning in find_warnings(settings):
        say(f"Warning: {warning}")
    if as_json:
        print_json({"config": str(config), "steps": [_plain(step) for step in steps]})
        return
    for step in steps:
        click.echo(f"  {'made  ' if step.made else 'exists'}  {step.what}")
    click.echo(_next_steps(config, catalogue))


def _answers(
    issuer: str | None,
    database_url: str,
    port: int | None,
    health_port: int | None,
    *,
    development: bool,
) -> Answers:
    """Return what the settings file is to say; refuse early what it cannot."""
    if issuer is None and not development:
        raise click.UsageError(
            "Name the --issuer URL that clients will see, or use --development for trying out."
        )
    issuer = issuer or _DEVELOPMENT_ISSUER
    try:
        parts = require_issuer(issuer, plain_http_allowed=development)
        parse_database_url(database_url)
    except RuleError as error:
        raise SettingsError(error.problem, key=error.key, remedy=error.remedy) from error
    port = port or (development and parts.port) or DEFAULT_PORT
    return Answers(
        issuer=issuer,
        environment="development" if development else "production",
        database_url=database_url,
        port=port,
        health_port=health_port or (port + 1 if port < MAXIMUM_PORT else port - 1),
        mount_prefix=parts.path,
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
