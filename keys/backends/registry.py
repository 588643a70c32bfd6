"""Finds the backend that a URI names, among those installed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import entry_points

from keys.backend import KeyBackend
from keys.backends.local.storage import EncryptedKeyStorage
from keys.backends.vault.settings import VaultAccess
from keys.errors import KeysError
from keys.observer import Observer, SilentObserver

ENTRY_POINT_GROUP = "authz_server.key_backends"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendContext:
    """What a backend may use of the process that opens it.

    Attributes:
        clock: Returns the present, timezone-aware.
        ring: The ring that the backend is opened for; one whose URI names a key serves no other.
        vaults: How to reach each Vault, by the name that URIs use.
        observer: Hears of signatures, outages and alarms.
        experimental: Algorithms that few verifiers know yet may be used.
        encrypted_keys: Where encrypted private keys can be kept, if the process has such a place.
        key_encryption_key: 32 bytes, if the process has them.
    """

    clock: Callable[[], datetime]
    ring: str = ""
    vaults: Mapping[str, VaultAccess] = field(default_factory=dict)
    observer: Observer = field(default_factory=SilentObserver)
    experimental: bool = False
    encrypted_keys: EncryptedKeyStorage | None = None
    key_encryption_key: bytes | None = field(default=None, repr=False)


def open_backend(uri: str, context: BackendContext) -> KeyBackend:
    """Return the open backend for ``uri``.

    The scheme is the name of an entry point of the group ``authz_server.key_backends``, which is a
    function of the same two arguments.

    Raises:
        KeysError: No backend of that scheme is installed, a library that it needs is missing, or
            the context lacks something.
    """
    scheme = uri.partition(":")[0]
    installed = entry_points(group=ENTRY_POINT_GROUP)
    if scheme not in installed.names:
        known = ", ".join(sorted(installed.names)) or "none"
        raise KeysError(f"no key backend for {scheme!r} is installed (installed: {known})")
    try:
        opener: Callable[[str, BackendContext], KeyBackend] = installed[scheme].load()
    except ImportError as error:
        raise KeysError(f"the key backend {scheme!r} needs a library: {error}") from error
    return opener(uri, context)
