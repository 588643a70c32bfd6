"""The argument that names a key."""

from authz_server.cli.invocation import Invocation
from authz_server.operations.key_names import ChooseKey, find_kid

_ID_CHARACTERS = 43


def resolve_kid(invocation: Invocation, named: str, choose: ChooseKey) -> str:
    """Return the id of the key that a command's argument means; see :func:`find_kid`."""
    if len(named) == _ID_CHARACTERS:
        return named
    with invocation.services() as services:
        rings = services.key_store.load_rings(services.clock())
    return find_kid(rings, named, choose)
