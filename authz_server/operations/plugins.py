"""The installed plugins: where each comes from, what it implements, and whether it is enabled."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from authz_server.hookspecs import PROJECT, Hooks
from authz_server.plugin_manager import ENTRY_POINT_GROUP
from authz_server.settings import Secret
from authz_server.settings.schema import PluginSettings

_HIDDEN = "(secret)"
_MAXIMUM_PROBLEM = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPlugin:
    """One plugin.

    Attributes:
        name: the name of its entry point.
        distribution: the package that provides it; empty: it is not installed.
        version: the version of that package.
        hooks: the hooks that it implements, in the order of the specification.
        enabled: whether the settings enable it.
        settings: its table of settings, without secrets.
        problem: why it cannot be loaded; empty: it can be.
    """

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...]
    enabled: bool
    settings: Mapping[str, Any]
    problem: str = ""


def list_plugins(settings: PluginSettings) -> list[InstalledPlugin]:
    """Return every installed plugin, and every enabled one that is not installed.

    Each plugin is imported, and none is started. The enabled ones come first, in their order.

    Args:
        settings: the enabled plugins and their settings.
    """
    found = {each.name: each for each in entry_points(group=ENTRY_POINT_GROUP)}
    others = sorted(found.keys() - set(settings.enabled))
    return [_describe(name, found.get(name), settings) for name in (*settings.enabled, *others)]


def _describe(
    name: str, entry_point: EntryPoint | None, settings: PluginSettings
) -> InstalledPlugin:
    distribution = entry_point.dist if entry_point is not None else None
    hooks, problem = _find_hooks(entry_point)
    return InstalledPlugin(
        name=name,
        distribution=distribution.name if distribution is not None else "",
        version=distribution.version if distribution is not None else "",
        hooks=hooks,
        enabled=name in settings.enabled,
        settings=_without_secrets(settings.settings.get(name, {})),
        problem=problem,
    )


def _find_hooks(entry_point: EntryPoint | None) -> tuple[tuple[str, ...], str]:
    """Return the hooks of a plugin, and why it cannot be loaded."""
    if entry_point is None:
        return (), "it is not installed"
    try:
        loaded = entry_point.load()
    except Exception as error:  # noqa: BLE001 - a package may fail in any way
        return (), f"it cannot be loaded: {error}"[:_MAXIMUM_PROBLEM]
    plugin = loaded if inspect.isclass(loaded) else type(loaded)
    marked = {
        name for name in dir(plugin) if hasattr(getattr(plugin, name, None), f"{PROJECT}_impl")
    }
    hooks = tuple(hook for hook in vars(Hooks) if hook in marked)
    unknown = sorted(marked - set(hooks))
    return hooks, f"unknown hooks: {', '.join(unknown)}" if unknown else ""


def _without_secrets(value: Any) -> Any:  # noqa: ANN401 - a value of TOML
    match value:
        case Secret():
            return _HIDDEN
        case Mapping():
            return {name: _without_secrets(each) for name, each in value.items()}
        case list() | tuple():
            return [_without_secrets(each) for each in value]
    return value
