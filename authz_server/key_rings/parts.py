"""The parts of a process that have to do with signing keys, made from the settings and wired."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy.orm import Session

from authz_server.audit.events import Event, SignatureMade
from authz_server.audit.sink import AuditUnavailable
from authz_server.database.orm import Database
from authz_server.key_rings.alarms import KeyObserver
from authz_server.key_rings.backends import open_backends, ring_rules
from authz_server.key_rings.consumers import JwksReaders
from authz_server.key_rings.jobs import SERVER, KeyDuties
from authz_server.key_rings.standby import StandbyReadiness
from authz_server.key_rings.store import SqlKeyStore
from authz_server.key_rings.vaults import vault_accesses
from authz_server.settings import Settings
from keys.backend import KeyBackend
from keys.backends.vault.settings import VaultAccess
from keys.lifecycle.rotator import Rotator
from keys.observer import Observer
from keys.ring import KeyRings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyParts:
    """What one process needs for its key rings."""

    store: SqlKeyStore
    backends: Mapping[str, KeyBackend]
    rings: KeyRings
    readers: JwksReaders
    duties: KeyDuties


def assemble_keys(  # noqa: PLR0913 - what it is made from, by name
    *,
    database: Database,
    settings: Settings,
    clock: Callable[[], datetime],
    record: Callable[[Event], None],
    after_commit: Callable[[Session], None],
    counter: Observer | None = None,
    accesses: Mapping[str, VaultAccess] | None = None,
) -> KeyParts:
    """Return the parts over a database.

    Args:
        database: where rings, nodes and readers are.
        settings: checked already.
        clock: returns the present time.
        record: records an event.
        after_commit: is called with the session of each committed change of a ring.
        counter: counts what happens to signatures and backends.
        accesses: how the Vaults are reached, and as whom; None: as the server.

    Raises:
        KeysError: a key backend cannot be used.
        SettingsError: a file of a Vault's login is missing or open to others.
    """
    timing = settings.keys.timing()
    observer = KeyObserver(record, counter)
    store = SqlKeyStore(database.transaction, database.reading, after_commit)
    if accesses is None:
        accesses = vault_accesses(settings, "server")
    backends = open_backends(settings, database, clock, accesses, observer)
    rings = KeyRings(
        store,
        backends,
        clock,
        settings.keys.default_ring,
        timing=timing,
        observer=observer,
        on_proof=partial(_record_proof, record),
    )
    rotator = Rotator(
        store=store,
        backends=backends,
        rules=ring_rules(settings, "server"),
        clock=clock,
        timing=timing,
        observer=observer,
        readiness=StandbyReadiness(database, settings.keys, clock),
    )
    readers = JwksReaders(clock)
    duties = KeyDuties(
        database=database,
        store=store,
        key_rings=rings,
        rotator=rotator,
        readers=readers,
        observer=observer,
        clock=clock,
        snapshot_lifetime_seconds=settings.keys.snapshot_lifetime_seconds,
    )
    return KeyParts(store, backends, rings, readers, duties)


def _record_proof(record: Callable[[Event], None], kid: str, request_id: str) -> None:
    """Record a signature that showed readiness, so that the Vault's log is accounted for."""
    event = SignatureMade(
        client_id=SERVER, purpose="readiness", kid=kid, backend_request_id=request_id
    )
    try:
        record(event)
    except AuditUnavailable as error:
        logger.warning("the signature %s is not recorded: %s", request_id, error.detail)
