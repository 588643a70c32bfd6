"""From the settings to the key rings: what is ordered for each, and the backends that hold them."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal

from authz_server.database.orm import Database
from authz_server.key_rings.private_keys import SqlEncryptedKeyStorage
from authz_server.settings import LONGEST_LIFETIME_SECONDS, Settings
from keys.backend import KeyBackend
from keys.backends.registry import BackendContext, open_backend
from keys.backends.vault.settings import VaultAccess
from keys.lifecycle.plan import ALL_POWERS, NO_POWERS, Drive, Powers
from keys.lifecycle.survey import RingRules
from keys.observer import Observer, SilentObserver
from keys.signing_key import RingDefinition

#: Who acts on a ring: the server's own thread, ``keys tick`` at its hours, a person who orders.
Role = Literal["server", "tick", "order"]


def ring_definition(settings: Settings, name: str) -> RingDefinition:
    """Return what the settings say of the ring ``keys.rings.NAME``."""
    ring = settings.keys.rings[name]
    return RingDefinition(
        name=name,
        alg=ring.algorithm,
        backend_uri=ring.backend,
        # Not the present setting: tokens made under a longer one live on when it is lowered.
        maximum_lifetime_seconds=LONGEST_LIFETIME_SECONDS,
        prepublication_seconds=settings.keys.prepublication_seconds(name),
        rotation_interval_seconds=ring.rotation_interval_seconds,
    )


def ring_rules(settings: Settings, role: Role) -> dict[str, RingRules]:
    """Return the rules of every ring of the settings, by name, for whoever acts as ``role``."""
    return {
        name: RingRules(
            definition=ring_definition(settings, name),
            drive=Drive(ring.drive),
            powers=powers_of(Drive(ring.drive), role),
        )
        for name, ring in settings.keys.rings.items()
    }


def powers_of(drive: Drive, role: Role) -> Powers:
    """Return what ``role`` may ask of the backend of a ring that ``drive`` moves on.

    Whoever orders may ask for everything: whether it is done is for the backend to say.
    """
    allowed = {
        "server": drive is Drive.SELF,
        "tick": drive is not Drive.FOLLOW,
        "order": True,
    }
    return ALL_POWERS if allowed[role] else NO_POWERS


def open_backends(
    settings: Settings,
    database: Database,
    clock: Callable[[], datetime],
    vaults: Mapping[str, VaultAccess],
    observer: Observer | None = None,
) -> dict[str, KeyBackend]:
    """Return the open backends of every ring of the settings, by URI.

    Args:
        settings: checked already.
        database: where the encrypted keys of ``sql://`` are.
        clock: returns the present time.
        vaults: how each Vault is reached, and as whom.
        observer: hears of signatures, outages and alarms.

    Raises:
        KeysError: a backend cannot be used.
    """
    key = settings.keys.key_encryption_key
    return {
        ring.backend: open_backend(
            ring.backend,
            BackendContext(
                clock=clock,
                ring=name,
                vaults=vaults,
                observer=observer or SilentObserver(),
                experimental=settings.keys.experimental_algorithms,
                encrypted_keys=SqlEncryptedKeyStorage(database.transaction, database.reading),
                key_encryption_key=None if key is None else key.reveal(),
            ),
        )
        for name, ring in settings.keys.rings.items()
    }
