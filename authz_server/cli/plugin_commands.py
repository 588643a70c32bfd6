"""Finds the commands of the enabled plugins."""

import tomllib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from authz_server.cli.invocation import shared_options

if TYPE_CHECKING:
    from authz_server.assembly import Services
    from authz_server.settings import Settings


def find_plugin_commands(config: Path, built_in: Iterable[str]) -> Mapping[str, click.Command]:
    """Return the commands of the enabled plugins, by name.

    If the settings file is missing or enables no plugin, nothing is imported.

    Args:
        config: the settings file.
        built_in: the names of the other commands.

    Raises:
        SettingsError: the settings cannot be used.
        PluginError: a plugin cannot be used, or two commands have one name.
    """
    if not _enables_plugins(config):
        return {}
    from authz_server.assembly.base import utc_now  # noqa: PLC0415
    from authz_server.assembly.plugin_services import PluginServices  # noqa: PLC0415
    from authz_server.plugin_manager import (  # noqa: PLC0415
        SERVER,
        PluginManager,
        ProvidedPart,
        require_distinct,
    )
    from authz_server.settings import load_settings  # noqa: PLC0415

    settings = load_settings(config)
    plugins = PluginManager(
        settings.plugins.enabled,
        settings.plugins.settings,
        services=PluginServices(settings, utc_now, partial(_open_services, settings)),
    )
    parts = [
        *(ProvidedPart(SERVER, name, click.Command(name)) for name in built_in),
        *(
            ProvidedPart(by, str(command.name), command)
            for by, command in plugins.registered("register_commands", _require_command)
        ),
    ]
    commands = require_distinct("command", parts)
    return {name: _with_shared_options(commands[name]) for name in commands.keys() - set(built_in)}


def _open_services(settings: "Settings") -> "Services":
    """Return the parts of a process that records nothing, for a plugin that uses one."""
    from authz_server.assembly import Services  # noqa: PLC0415
    from authz_server.database.orm import open_database  # noqa: PLC0415

    return Services(settings, open_database(settings.database))


def _enables_plugins(config: Path) -> bool:
    try:
        document = tomllib.loads(config.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    plugins = document.get("plugins")
    return isinstance(plugins, dict) and bool(plugins.get("enabled"))


def _require_command(part: object) -> click.Command:
    if not isinstance(part, click.Command) or not part.name:
        raise TypeError(f"{part!r} is not a click.Command with a name")
    return part


def _with_shared_options(command: click.Command) -> click.Command:
    taken = {option for each in command.params for option in each.opts}
    for option in shared_options(with_environment=False):
        if taken.isdisjoint(option.opts):
            command.params.append(option)
    return command
