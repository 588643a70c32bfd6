"""What ``keys doctor`` finds out from the Vaults, logged in as the server and as the rotator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from authz_server.cli.keys.composition import KeyOperations
from authz_server.cli.keys.policy import places_in
from authz_server.cli.keys.proof import prove, record_signature
from authz_server.key_rings.backends import open_backends
from authz_server.key_rings.vaults import Identity, vault_access
from authz_server.settings import SettingsError
from keys.backend import KeyBackend
from keys.backends.vault.doctor import (
    Finding,
    Level,
    examine_key,
    examine_rights,
    examine_token,
    try_configuring,
    try_unpinned,
)
from keys.backends.vault.places import VaultPlace
from keys.backends.vault.policies import VaultRole
from keys.backends.vault.settings import VaultAccess
from keys.errors import BackendError, KeysError
from keys.lifecycle.rules import find_active_key

if TYPE_CHECKING:
    from keys.backends.vault.session import VaultSession

PURPOSE = "doctor"


def examine_vaults(operations: KeyOperations) -> Iterator[Finding]:
    """Yield what is found in every Vault that a ring is in."""
    settings = operations.services.settings
    for name, vault in settings.keys.vaults.items():
        places = places_in(settings, name)
        if not places:
            detail = "no ring is kept there"
            yield Finding(Level.NOTE, "vault.rings", name, detail)
            continue
        yield from _examine(operations, name, "server", places)
        rotated = {
            ring: place
            for ring, place in places.items()
            if settings.keys.rings[ring].drive == "rotator"
        }
        if rotated and vault.rotator_login is None:
            detail = 'drive "rotator" without a rotator_login: the server\'s would have to rotate'
            yield Finding(Level.FAILURE, "vault.rotator_login", name, detail)
        elif rotated:
            yield from _examine(operations, name, "rotator", rotated)


def _examine(
    operations: KeyOperations, name: str, identity: Identity, places: Mapping[str, VaultPlace]
) -> Iterator[Finding]:
    """Yield what is found as one identity; whatever stops that is a finding too."""
    subject = f"{name} as the {identity}"
    try:
        access = vault_access(operations.services.settings, name, identity)
        with _logged_in(access, name) as session:
            findings = examine_token(session)
            yield from findings
            if any(finding.level is Level.FAILURE for finding in findings):
                return
            if identity == "server":
                yield from _as_server(operations, session, places)
            else:
                yield from _as_rotator(session, places)
    except (KeysError, SettingsError) as error:
        yield Finding(Level.FAILURE, "vault.examined", subject, str(error))


@contextmanager
def _logged_in(access: VaultAccess, name: str) -> Iterator[VaultSession]:
    from keys.backends.vault.session import VaultSession  # noqa: PLC0415 - it needs hvac

    session = VaultSession(access, name=name)
    try:
        yield session
    finally:
        session.close()


def _as_rotator(session: VaultSession, places: Mapping[str, VaultPlace]) -> Iterator[Finding]:
    yield from examine_rights(session, VaultRole.ROTATOR, dict.fromkeys(places.values(), False))
    for place in places.values():
        if place.scheme == "transit":
            yield try_configuring(session, place)


def _as_server(
    operations: KeyOperations, session: VaultSession, places: Mapping[str, VaultPlace]
) -> Iterator[Finding]:
    rings = operations.services.settings.keys.rings
    selves = {place: rings[ring].drive == "self" for ring, place in places.items()}
    yield from examine_rights(session, VaultRole.SERVER, selves)
    for ring, place in places.items():
        if rings[ring].drive == "self":
            detail = 'drive "self": whoever takes the server\'s token over can also rotate'
            yield Finding(Level.NOTE, "ring.drive", ring, detail)
        if place.scheme == "transit":
            followed = rings[ring].drive == "follow"
            yield from examine_key(session, place, followed=followed)
            yield from _try(operations, session, ring, place)
    yield from _signatures(operations, places)


def _try(
    operations: KeyOperations, session: VaultSession, ring: str, place: VaultPlace
) -> Iterator[Finding]:
    if operations.services.settings.keys.rings[ring].drive == "self":
        yield try_configuring(session, place)
    attempt = try_unpinned(session, place)
    record_signature(
        operations.services,
        actor=operations.actor,
        purpose=PURPOSE,
        kid="",
        request_id=attempt.request_id,
    )
    yield attempt.finding


def _signatures(operations: KeyOperations, places: Mapping[str, VaultPlace]) -> Iterator[Finding]:
    """Yield for each ring whether the key that signs now does, as the server."""
    backends = server_backends(operations)
    for ring in operations.rings():
        key = find_active_key(ring.keys, operations.now())
        if ring.name not in places or key is None or ring.backend_uri not in backends:
            continue
        try:
            proof = prove(backends[ring.backend_uri], ring, key)
        except BackendError as error:
            yield Finding(Level.FAILURE, "ring.signature", ring.name, str(error))
            continue
        record_signature(
            operations.services,
            actor=operations.actor,
            purpose=PURPOSE,
            kid=key.kid,
            request_id=proof.request_id,
        )
        detail = f"version {key.version} signed in {proof.seconds * 1000:.1f} ms, checked here"
        yield Finding(Level.OK, "ring.signature", ring.name, detail)


def server_backends(operations: KeyOperations) -> dict[str, KeyBackend]:
    """Return the backends opened as the server, by URI.

    Raises:
        SettingsError: a file of the server's login is missing here, or open to others.
        KeysError: a backend cannot be used.
    """
    services = operations.services
    settings = services.settings
    accesses = {name: vault_access(settings, name, "server") for name in settings.keys.vaults}
    return open_backends(settings, services.database, services.clock, accesses)
