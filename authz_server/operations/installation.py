"""Create the settings, secrets, database and first keys of a server."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from authz_server.assembly.operator import operator_services
from authz_server.database.schema import read_schema, upgrade_database
from authz_server.errors import ConflictError
from authz_server.operations.installation_options import (
    DATABASE_PASSWORD,
    Difference,
    InstallationOptions,
)
from authz_server.operations.keys.first_keys import create_missing_keys
from authz_server.operations.private_files import without_line_break, write_private_file
from authz_server.operations.scopes import import_g2p_connect
from authz_server.operations.settings import SettingsWarning, find_warnings, warn_of_pepper
from authz_server.operations.settings_template import Answers, render_settings
from authz_server.settings import Settings, SettingsError, load_settings

SECRET_FILES: dict[str, Callable[[], str]] = {
    "pepper": lambda: secrets.token_urlsafe(48),
    "key-encryption-key": lambda: secrets.token_hex(32),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One part of an installation.

    Attributes:
        what: the part, with the path of a file.
        made: True if it was made now, False if it existed.
    """

    what: str
    made: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The result of :func:`install`.

    Attributes:
        steps: the parts, in the order in which they are made.
        warnings: settings that an operator should review.
        differences: options that an existing settings file contradicts.
    """

    steps: tuple[Step, ...]
    warnings: tuple[SettingsWarning, ...]
    differences: tuple[Difference, ...]


def install(
    config: Path,
    options: InstallationOptions,
    answers: Answers | None,
    *,
    actor: str,
    import_catalogue: bool,
) -> Installation:
    """Create the missing settings, secrets, database and first keys.

    Args:
        config: the settings file; secrets go to the folder ``secrets`` in its folder.
        options: the given options, which are compared with an existing settings file.
        answers: the content of a new settings file; None: the existing one is kept.
        actor: the recorded actor.
        import_catalogue: import the scopes of G2P Connect.

    Raises:
        ConflictError: a file has another database password.
        SettingsError: the settings cannot be used.
        KeysError: a key backend cannot be used.
    """
    replaced = answers is not None and config.exists()
    steps = list(_prepare_directory(config, answers, options.password()))
    try:
        settings = load_settings(config)
    except SettingsError:
        # New settings that cannot be used go: a next run with other options would keep them.
        if replaced:
            _backup(config).rename(config)
        elif answers is not None:
            config.unlink()
        raise
    steps += _prepare_database(settings, actor=actor, import_catalogue=import_catalogue)
    return Installation(
        steps=tuple(steps),
        warnings=find_warnings(settings) + warn_of_pepper(settings),
        differences=tuple(options.differences(settings, config)) if answers is None else (),
    )


def _prepare_directory(
    config: Path, answers: Answers | None, password: bytes | None
) -> Iterator[Step]:
    directory = config.parent
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
    if answers is not None:
        if config.exists():
            config.rename(_backup(config))
        config.write_text(render_settings(answers), encoding="utf-8")
    yield Step(f"settings file {config}", answers is not None)


def _backup(config: Path) -> Path:
    return config.with_suffix(".toml.bak")


def _keep_password(path: Path, password: bytes) -> Step:
    made = not path.exists()
    if made:
        write_private_file(path, password + b"\n")
    elif without_line_break(path.read_bytes()) != password:
        raise ConflictError(
            f"{path} holds another password than --database-url: change it there, and leave the "
            "password out of the URL."
        )
    return Step(f"database password {path} (0600)", made)


def _prepare_database(settings: Settings, *, actor: str, import_catalogue: bool) -> Iterator[Step]:
    current = read_schema(settings.database, missing_file=True).is_current
    if not current:
        upgrade_database(settings.database)
    yield Step("database schema", not current)
    with operator_services(settings) as services:
        for ring, made in create_missing_keys(services, actor=actor).items():
            yield Step(f"signing keys of the ring {ring}", made)
        if import_catalogue:
            result = import_g2p_connect(services, actor=actor)
            yield Step("scopes of G2P Connect", bool(result.added or result.updated))
