"""The local backend with the server's database: ``sql://``.

It contains no SQL: the server provides a storage for envelopes.
"""

from keys.backend import KeyBackend
from keys.backends.local.backend import LocalBackend
from keys.backends.registry import BackendContext
from keys.errors import KeysError

__all__ = ["LocalBackend", "open_backend"]


def open_backend(uri: str, context: BackendContext) -> KeyBackend:
    """Return the local backend; ``uri`` is ``sql://``.

    Raises:
        KeysError: the URI has further parts, or there is no key-encryption key or no storage.
    """
    if uri != "sql://":
        raise KeysError(f"the local key backend is named 'sql://', not {uri!r}")
    if context.key_encryption_key is None or context.encrypted_keys is None:
        raise KeysError("the local key backend needs a key-encryption key and a database")
    return LocalBackend(
        context.encrypted_keys,
        context.key_encryption_key,
        context.clock,
        experimental=context.experimental,
    )
