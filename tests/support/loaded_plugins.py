"""Plugins made in a test, loaded as installed ones are."""

from authz_server.hookspecs import hookimpl
from authz_server.plugin_manager import PluginManager


class Available:
    """An entry point that needs no installed package: it loads what it was given."""

    def __init__(self, name, loads):
        self.name = name
        self._loads = loads

    def load(self):
        if isinstance(self._loads, Exception):
            raise self._loads
        return self._loads


def plugins(settings=None, **classes):
    """Return the given plugin classes loaded in that order."""
    available = [Available(name, loads) for name, loads in classes.items()]
    return PluginManager(list(classes), settings or {}, available)


def plugin_with(hook, function):
    """Return a plugin class whose one hook is the function."""
    return type("Plugin", (), {hook: staticmethod(hookimpl(function))})
