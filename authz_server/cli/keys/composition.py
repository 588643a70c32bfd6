"""What a command of ``keys`` works with: services, backends opened as whoever acts, a rotator."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from authz_server.audit import AuditUnavailable
from authz_server.cli.invocation import Invocation
from authz_server.cli.output import say
from authz_server.events import KeyAlarm
from authz_server.jwks_readers import Readiness as ReaderCount
from authz_server.jwks_readers import load_jwks_readers, readiness
from authz_server.key_custody import Role, open_backends, ring_rules
from authz_server.services import Services
from authz_server.vaults import TOKEN_VARIABLE, Identity, vault_accesses
from keys.backend import KeyBackend
from keys.errors import OrderRefusedError
from keys.observer import SilentObserver
from keys.plan import Readiness
from keys.rotation import find_active_key
from keys.rotator import Rotator
from keys.signing_key import KeyState, RingSnapshot, SigningKey


class CommandObserver(SilentObserver):
    """Tells the operator of outages and alarms, each once, and has the alarms recorded.

    Args:
        record: Writes an event to the audit records.
    """

    def __init__(self, record: Callable[[KeyAlarm], None]) -> None:
        self._record = record
        self.outages: dict[str, str] = {}
        self.alarms: dict[tuple[str, str], str] = {}

    def begin(self) -> None:
        """Forget what was told of an earlier round."""
        self.outages.clear()
        self.alarms.clear()

    def backend_down(self, uri: str, reason: str) -> None:
        """Keep the outage for the command to report."""
        self.outages[uri] = reason

    def backend_up(self, uri: str) -> None:
        """Forget the outage."""
        self.outages.pop(uri, None)

    def alarm(self, event: str, subject: str, detail: str) -> None:
        """Keep and record the alarm."""
        if self.alarms.get((event, subject)) == detail:
            return
        self.alarms[event, subject] = detail
        try:
            self._record(KeyAlarm(alarm=event, subject=subject, detail=detail))
        except AuditUnavailable as error:
            say(f"The alarm is not recorded: {error.detail}")


@dataclass(frozen=True, slots=True)
class KeyOperations:
    """What a command of ``keys`` works with.

    Attributes:
        services: Every other part.
        backends: The open backends by URI, as ``identity``.
        rotator: Carries out orders.
        observer: What it told.
        identity: As whom the Vaults are asked.
        actor: Who is recorded.
    """

    services: Services
    backends: Mapping[str, KeyBackend]
    rotator: Rotator
    observer: CommandObserver = field(repr=False)
    identity: Identity
    actor: str

    def rings(self) -> tuple[RingSnapshot, ...]:
        """Return every ring by name."""
        return self.services.key_store.load_rings(self.services.clock())


def command_identity(environ: Mapping[str, str] = os.environ) -> Identity:
    """Return as whom a command asks the Vaults: the operator with a token, else the rotator."""
    return "operator" if environ.get(TOKEN_VARIABLE, "").strip() else "rotator"


@contextmanager
def key_operations(invocation: Invocation, role: Role) -> Iterator[KeyOperations]:
    """Yield what a command works with; ``role`` decides what it may ask of the backends."""
    identity = command_identity()
    with invocation.services() as services:
        observer = CommandObserver(services.record)
        settings = services.settings
        backends = open_backends(
            settings,
            services.database,
            services.clock,
            vault_accesses(settings, identity),
            observer,
        )
        rotator = Rotator(
            store=services.key_store,
            backends=backends,
            rules=ring_rules(settings, role),
            clock=services.clock,
            timing=settings.keys.timing(),
            observer=observer,
            readiness=lambda ring: ring_readiness(services, ring),
        )
        yield KeyOperations(services, backends, rotator, observer, identity, invocation.actor)


# ------------------------------------------------------------------------- readers of the JWKS


def find_next_key(ring: RingSnapshot, now: datetime) -> SigningKey | None:
    """Return the published key that is to sign after the one that signs now."""
    active = find_active_key(ring.keys, now)
    lowest = active.version if active else 0
    for key in ring.keys:
        if key.state is KeyState.PUBLISHED and key.version > lowest:
            return key
    return None


def count_readers(services: Services, key: SigningKey) -> ReaderCount:
    """Return which known readers of the JWKS have fetched it since ``key`` was published."""
    window = timedelta(seconds=services.settings.keys.reader_window_seconds)
    start = services.clock() - window
    with services.database.reading() as session:
        readers = load_jwks_readers(session, start)
    return readiness(readers, key.published_at or key.created_at, start)


def ring_readiness(services: Services, ring: RingSnapshot) -> Readiness:
    """Return who has not fetched the key of ``ring`` that is to sign next."""
    next_key = find_next_key(ring, services.clock())
    binding = services.settings.keys.activation_gate == "binding"
    if next_key is None:
        return Readiness(binding=binding)
    missing = count_readers(services, next_key).missing
    return Readiness(missing=tuple(str(each.name) for each in missing), binding=binding)


def require_ring(operations: KeyOperations, name: str) -> RingSnapshot:
    """Return the ring ``name``; OrderRefusedError if there is none."""
    for ring in operations.rings():
        if ring.name == name:
            return ring
    raise OrderRefusedError(f"there is no ring {name!r}")
