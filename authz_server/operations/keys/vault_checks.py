"""Check the Vaults, logged in as the server and as the rotator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from authz_server.key_rings.backends import open_backends
from authz_server.key_rings.vaults import Identity, vault_access
from authz_server.operations.keys.context import KeyContext
from authz_server.operations.keys.policies import places_in
from authz_server.operations.keys.signature_check import check_signature, record_signature
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
from keys.backends.vault.policy import VaultPlace, VaultRole
from keys.backends.vault.settings import VaultAccess
from keys.errors import BackendError, KeysError
from keys.lifecycle.rules import find_active_key

if TYPE_CHECKING:
    from keys.backends.vault.client import VaultClient

PURPOSE = "doctor"


def examine_vaults(context: KeyContext) -> Iterator[Finding]:
    """Yield the findings about every Vault."""
    settings = context.settings
    for name, vault in settings.keys.vaults.items():
        places = places_in(settings, name)
        if not places:
            detail = "no ring is kept there"
            yield Finding(Level.NOTE, "vault.rings", name, detail)
            continue
        yield from _examine(context, name, "server", places)
        rotated = {
            ring: place
            for ring, place in places.items()
            if settings.keys.rings[ring].drive == "rotator"
        }
        if rotated and vault.rotator_login is None:
            detail = 'drive "rotator" without a rotator_login: the server\'s would have to rotate'
            yield Finding(Level.FAILURE, "vault.rotator_login", name, detail)
        elif rotated:
            yield from _examine(context, name, "rotator", rotated)


def _examine(
    context: KeyContext, name: str, identity: Identity, places: Mapping[str, VaultPlace]
) -> Iterator[Finding]:
    """Yield the findings as one identity; an error ends the examination as a finding."""
    subject = f"{name} as the {identity}"
    try:
        access = vault_access(context.settings, name, identity)
        with _logged_in(access, name) as client:
            findings = examine_token(client)
            yield from findings
            if any(finding.level is Level.FAILURE for finding in findings):
                return
            if identity == "server":
                yield from _as_server(context, client, places)
            else:
                yield from _as_rotator(client, places)
    except (KeysError, SettingsError) as error:
        yield Finding(Level.FAILURE, "vault.examined", subject, str(error))


@contextmanager
def _logged_in(access: VaultAccess, name: str) -> Iterator[VaultClient]:
    from keys.backends.vault.client import VaultClient  # noqa: PLC0415 - for a Vault alone

    client = VaultClient(access, name=name)
    try:
        yield client
    finally:
        client.close()


def _as_rotator(client: VaultClient, places: Mapping[str, VaultPlace]) -> Iterator[Finding]:
    yield from examine_rights(client, VaultRole.ROTATOR, dict.fromkeys(places.values(), False))
    for place in places.values():
        if place.scheme == "transit":
            yield try_configuring(client, place)


def _as_server(
    context: KeyContext, client: VaultClient, places: Mapping[str, VaultPlace]
) -> Iterator[Finding]:
    rings = context.settings.keys.rings
    selves = {place: rings[ring].drive == "self" for ring, place in places.items()}
    yield from _guarded(client, lambda: examine_rights(client, VaultRole.SERVER, selves))
    for ring, place in places.items():
        if rings[ring].drive == "self":
            detail = 'drive "self": a stolen token of the server can also rotate'
            yield Finding(Level.NOTE, "ring.drive", ring, detail)
        if place.scheme == "transit":
            yield from _guarded(client, partial(_examine_key, context, client, ring, place))
    yield from _signatures(context, places)


def _guarded(client: VaultClient, examine: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield the findings of one examination; its error is a finding, and the next one follows."""
    try:
        yield from examine()
    except KeysError as error:
        yield Finding(Level.FAILURE, "vault.examined", f"{client.name} as the server", str(error))


def _examine_key(
    context: KeyContext, client: VaultClient, ring: str, place: VaultPlace
) -> Iterator[Finding]:
    followed = context.settings.keys.rings[ring].drive == "follow"
    yield from examine_key(client, place, followed=followed)
    yield from _try(context, client, ring, place)


def _try(
    context: KeyContext, client: VaultClient, ring: str, place: VaultPlace
) -> Iterator[Finding]:
    if context.settings.keys.rings[ring].drive == "self":
        yield try_configuring(client, place)
    attempt = try_unpinned(client, place)
    record_signature(context, purpose=PURPOSE, kid="", request_id=attempt.request_id)
    yield attempt.finding


def _signatures(context: KeyContext, places: Mapping[str, VaultPlace]) -> Iterator[Finding]:
    """Yield a finding about the signature of each active key, as the server."""
    backends = server_backends(context)
    for ring in context.rings():
        key = find_active_key(ring.keys, context.now())
        if ring.name not in places or key is None or ring.backend_uri not in backends:
            continue
        try:
            signature = check_signature(backends[ring.backend_uri], ring, key)
        except BackendError as error:
            yield Finding(Level.FAILURE, "ring.signature", ring.name, str(error))
            continue
        record_signature(context, purpose=PURPOSE, kid=key.kid, request_id=signature.request_id)
        detail = f"version {key.version} signed in {signature.seconds * 1000:.1f} ms, checked here"
        yield Finding(Level.OK, "ring.signature", ring.name, detail)


def server_backends(context: KeyContext) -> dict[str, KeyBackend]:
    """Return the backends opened as the server, by URI.

    Raises:
        SettingsError: a file of the server's login is missing, or readable by others.
        KeysError: a backend cannot be used.
    """
    services = context.services
    settings = services.settings
    accesses = {name: vault_access(settings, name, "server") for name in settings.keys.vaults}
    registry = services.backend_registry
    return open_backends(settings, registry, services.database, services.clock, accesses)
