"""The modules with the requests of operations, each of which a command imports alone."""

from importlib import import_module
from pkgutil import iter_modules

from authz_server.cli import remote
from authz_server.cli.remote.table import PLACES, TABLE

_OPERATIONS, _REMOTE = "authz_server.operations.", f"{remote.__name__}."


def test_every_operation_is_found_in_the_module_that_has_its_requests():
    """A command imports the module of its operation, whatever was imported before."""
    for module in iter_modules(remote.__path__):
        import_module(f"{_REMOTE}{module.name}")
    assert len(TABLE) > 50
    for operation, requests in TABLE.items():
        place = PLACES.get(operation.__module__.removeprefix(_OPERATIONS))
        assert place == requests.__module__.removeprefix(_REMOTE), operation
