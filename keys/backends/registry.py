"""Registry of key backends by URI scheme."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import EntryPoint, entry_points

from keys.backend import KeyBackend
from keys.backends.local.storage import EncryptedKeyStorage
from keys.backends.vault.settings import VaultAccess
from keys.errors import KeysError
from keys.events import Notify, ignore

ENTRY_POINT_GROUP = "authz_server.key_backends"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendContext:
    """The resources that a process provides to the backends it opens.

    Attributes:
        clock: returns the present time, timezone-aware.
        ring: the ring that the backend is opened for; a URI that names a key serves only that ring.
        vaults: access to each Vault, by the name in URIs.
        notify: receives signatures, outages and alarms.
        experimental: whether experimental algorithms are enabled.
        encrypted_keys: storage of encrypted private keys, if any.
        key_encryption_key: 32 bytes, if any.
    """

    clock: Callable[[], datetime]
    ring: str = ""
    vaults: Mapping[str, VaultAccess] = field(default_factory=dict)
    notify: Notify = ignore
    experimental: bool = False
    encrypted_keys: EncryptedKeyStorage | None = None
    key_encryption_key: bytes | None = field(default=None, repr=False)


Opener = Callable[[str, BackendContext], KeyBackend]


class BackendRegistry:
    """The key backends that a process can open, by URI scheme.

    Installed packages provide a backend by an entry point of the group
    ``authz_server.key_backends``. The entry point's name is the scheme, and its value is a function
    of a URI and a context.

    Args:
        provided: further backends: the provider's name, the scheme, and the function.

    Raises:
        KeysError: two backends register the same scheme.
    """

    def __init__(self, provided: Iterable[tuple[str, str, Opener]] = ()) -> None:
        self._provided: dict[str, tuple[str, Opener]] = {}
        for by, scheme, opener in provided:
            installed = _installed(scheme)
            if scheme in self._provided or installed is not None:
                other = self._provided[scheme][0] if installed is None else _package(installed)
                raise _provided_twice(scheme, other, by)
            self._provided[scheme] = by, opener

    def open(self, uri: str, context: BackendContext) -> KeyBackend:
        """Return the open backend for ``uri``.

        Raises:
            KeysError: no backend of that scheme is installed, two are, a library is missing, or the
                context lacks something.
        """
        scheme = uri.partition(":")[0]
        if scheme in self._provided:
            return self._provided[scheme][1](uri, context)
        entry_point = _installed(scheme)
        if entry_point is None:
            names = {*entry_points(group=ENTRY_POINT_GROUP).names, *self._provided}
            known = ", ".join(sorted(names)) or "none"
            raise KeysError(f"no key backend for {scheme!r} is installed (installed: {known})")
        try:
            opener: Opener = entry_point.load()
        except ImportError as error:
            raise KeysError(f"the key backend {scheme!r} needs a library: {error}") from error
        return opener(uri, context)


def _installed(scheme: str) -> EntryPoint | None:
    found: EntryPoint | None = None
    for entry_point in entry_points(group=ENTRY_POINT_GROUP, name=scheme):
        # A package may be found twice, for example in an editable installation.
        if found is not None and found.value != entry_point.value:
            raise _provided_twice(scheme, _package(found), _package(entry_point))
        found = found or entry_point
    return found


def _package(entry_point: EntryPoint) -> str:
    return f"the package {entry_point.dist.name}" if entry_point.dist else entry_point.value


def _provided_twice(scheme: str, first: str, second: str) -> KeysError:
    return KeysError(f"key backend {scheme!r}: provided by both {first} and {second}")
