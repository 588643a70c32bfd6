"""Key backends, opened by their URIs."""

from keys.backend import KeyBackend
from keys.backends.registry import BackendContext, BackendRegistry


def open_backend(uri: str, context: BackendContext) -> KeyBackend:
    """Open the backend of a URI, of those installed."""
    return BackendRegistry().open(uri, context)
