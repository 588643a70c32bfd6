"""Ring definitions, permissions and open backends from the settings."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal

from authz_server.database.orm import Database
from authz_server.key_rings.private_keys import SqlEncryptedKeyStorage
from authz_server.plugin_manager import PluginManager
from authz_server.settings import LONGEST_LIFETIME_SECONDS, Settings
from keys.backend import KeyBackend
from keys.backends.registry import BackendContext, BackendRegistry, Opener
from keys.backends.vault.settings import VaultAccess
from keys.events import Notify, ignore
from keys.lifecycle.state import (
    ALL_PERMISSIONS,
    NO_PERMISSIONS,
    Permissions,
    RingRules,
    RotationMode,
)
from keys.signing_key import RingDefinition, RingSnapshot

#: The actor of a ring: the server's own thread, a scheduled ``keys tick``, or an operator.
Role = Literal["server", "tick", "order"]


def ring_definition(settings: Settings, name: str) -> RingDefinition:
    """Return the definition of the ring ``keys.rings.NAME``."""
    ring = settings.keys.rings[name]
    return RingDefinition(
        name=name,
        alg=ring.algorithm,
        backend_uri=ring.backend,
        # Not the present setting: tokens issued with a longer lifetime outlive a reduction.
        maximum_lifetime_seconds=LONGEST_LIFETIME_SECONDS,
        prepublication_seconds=settings.keys.prepublication_seconds(name),
        rotation_interval_seconds=ring.rotation_interval_seconds,
    )


def find_mismatch(settings: Settings, ring: RingSnapshot) -> str:
    """Return how the settings of a stored ring differ from it; empty if they do not."""
    wanted = ring_definition(settings, ring.name)
    if (ring.alg, ring.backend_uri) == (wanted.alg, wanted.backend_uri):
        return ""
    return (
        f"it is {ring.alg} at {ring.backend_uri}; the settings have {wanted.alg} at "
        f"{wanted.backend_uri}: give that ring another name and move this one to it"
    )


def ring_rules(settings: Settings, role: Role) -> dict[str, RingRules]:
    """Return the rules of every configured ring, by name, for an actor with ``role``."""
    return {
        name: RingRules(
            definition=ring_definition(settings, name),
            mode=RotationMode(ring.drive),
            permissions=permissions_of(RotationMode(ring.drive), role),
        )
        for name, ring in settings.keys.rings.items()
    }


def permissions_of(mode: RotationMode, role: Role) -> Permissions:
    """Return the operations that ``role`` may request from the backend of a ring.

    An order may request everything; the backend decides.
    """
    allowed = {
        "server": mode is RotationMode.AUTOMATIC,
        "tick": mode is not RotationMode.EXTERNAL,
        "order": True,
    }
    return ALL_PERMISSIONS if allowed[role] else NO_PERMISSIONS


def collect_backends(plugins: PluginManager) -> BackendRegistry:
    """Return the key backends that are installed or registered by a plugin.

    Raises:
        PluginError: a plugin fails.
        KeysError: two backends register the same scheme.
    """
    provided = plugins.registered("register_key_backends", _require_opener)
    return BackendRegistry((by, scheme, opener) for by, (scheme, opener) in provided)


def _require_opener(part: tuple[object, object]) -> tuple[str, Opener]:
    scheme, opener = part
    if not isinstance(scheme, str) or not callable(opener):
        raise TypeError(f"{part!r} is not a scheme with a function that opens its backend")
    return scheme, opener


def open_backends(  # noqa: PLR0913, PLR0917 - what backends are opened with
    settings: Settings,
    registry: BackendRegistry,
    database: Database,
    clock: Callable[[], datetime],
    vaults: Mapping[str, VaultAccess],
    notify: Notify = ignore,
) -> dict[str, KeyBackend]:
    """Return the open backends of all configured rings, by URI.

    Args:
        settings: validated settings.
        registry: the available backends.
        database: stores the encrypted keys of ``sql://``.
        clock: returns the present time.
        vaults: connection and login of each Vault.
        notify: receives signatures, outages and alarms.

    Raises:
        KeysError: a backend cannot be used.
    """
    key = settings.keys.key_encryption_key
    return {
        ring.backend: registry.open(
            ring.backend,
            BackendContext(
                clock=clock,
                ring=name,
                vaults=vaults,
                notify=notify,
                experimental=settings.keys.experimental_algorithms,
                encrypted_keys=SqlEncryptedKeyStorage(database.transaction, database.reading),
                key_encryption_key=None if key is None else key.reveal(),
            ),
        )
        for name, ring in settings.keys.rings.items()
    }
