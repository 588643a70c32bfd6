"""What a command of ``keys`` works with: services, backends opened as whoever acts, a rotator."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from authz_server.app import operator_services
from authz_server.assembly import Services
from authz_server.cli.invocation import Invocation
from authz_server.cli.output import echo_status
from authz_server.key_rings.alarms import KeyObserver
from authz_server.key_rings.backends import Role, open_backends, ring_rules
from authz_server.key_rings.standby import StandbyReadiness
from authz_server.key_rings.vaults import TOKEN_VARIABLE, Identity, vault_accesses
from authz_server.settings import Settings, SettingsError
from keys.backend import KeyBackend
from keys.backends.vault.settings import VaultAccess
from keys.errors import ClockOffError, OrderRefusedError
from keys.lifecycle.rotator import Rotator
from keys.observer import Observer, SilentObserver
from keys.signing_key import RingSnapshot


class CommandObserver(SilentObserver):
    """Keeps what a command has to tell the operator: outages and alarms."""

    def __init__(self) -> None:
        self.outages: dict[str, str] = {}
        self.alarms: dict[tuple[str, str], str] = {}

    def begin(self) -> None:
        """Forget what was told of an earlier round."""
        self.outages.clear()
        self.alarms.clear()

    def backend_down(self, uri: str, reason: str) -> None:
        """Keep the outage."""
        self.outages[uri] = reason

    def backend_up(self, uri: str) -> None:
        """Forget the outage."""
        self.outages.pop(uri, None)

    def alarm(self, event: str, subject: str, detail: str) -> None:
        """Keep the alarm."""
        self.alarms[event, subject] = detail


@dataclass(frozen=True, slots=True)
class KeyOperations:
    """What a command of ``keys`` works with.

    Attributes:
        services: Every other part.
        backends: The open backends by URI, as ``identity``.
        rotator: Carries out orders.
        observer: What it told.
        recorder: Receives alarms; keeps them in ``observer``, and in the records where changes are
            made.
        identity: As whom the Vaults are asked.
        actor: Who is recorded.
    """

    services: Services
    backends: Mapping[str, KeyBackend]
    rotator: Rotator
    observer: CommandObserver = field(repr=False)
    recorder: Observer = field(repr=False)
    identity: Identity
    actor: str

    def now(self) -> datetime:
        """Return the present by the database's clock, which rings are planned by."""
        offset = self.services.key_store.clock_offset_seconds()
        return self.services.clock() + timedelta(seconds=offset)

    def rings(self) -> tuple[RingSnapshot, ...]:
        """Return every ring by name, dated by the database's clock."""
        return self.services.key_store.load_rings(self.now())


def command_identity(environ: Mapping[str, str] = os.environ) -> Identity:
    """Return as whom a command asks the Vaults: the operator with a token, else the rotator."""
    return "operator" if environ.get(TOKEN_VARIABLE, "").strip() else "rotator"


@contextmanager
def key_operations(
    invocation: Invocation, role: Role, *, looking: bool = False
) -> Iterator[KeyOperations]:
    """Yield what a command works with.

    Args:
        invocation: the run of the command line.
        role: decides what it may ask of the backends.
        looking: nothing that it finds is recorded.
    """
    identity = command_identity()
    settings = invocation.settings()
    accesses = _accesses(settings, identity, role, looking=looking)
    with operator_services(settings, accesses) as services:
        told = CommandObserver()
        observer = told if looking else KeyObserver(services.record, told)
        backends = open_backends(settings, services.database, services.clock, accesses, observer)
        rotator = Rotator(
            store=services.key_store,
            backends=backends,
            rules=ring_rules(settings, role),
            clock=services.clock,
            timing=settings.keys.timing(),
            observer=observer,
            readiness=StandbyReadiness(services.database, settings.keys, services.clock),
            # Looking writes down nothing, not even how the clock stands.
            require_steady=(lambda: None) if looking else partial(require_steady_clock, services),
        )
        yield KeyOperations(services, backends, rotator, told, observer, identity, invocation.actor)


def _accesses(
    settings: Settings, identity: Identity, role: Role, *, looking: bool
) -> dict[str, VaultAccess]:
    """Return how the Vaults are reached.

    Where the rotator's login cannot be used, a person's order is carried out as the server: what
    concerns the JWKS and introspection must not wait for a file, and the Vault refuses the rest.
    """
    try:
        return vault_accesses(settings, identity)
    except SettingsError as error:
        if identity == "operator" or (role == "tick" and not looking):
            raise
        if not looking:
            echo_status(f"{error} The Vault is asked as the server.")
    return vault_accesses(settings, "server")


def require_steady_clock(services: Services) -> None:
    """Refuse to plan by a clock that has leapt: see ``authz_server.database.clock``.

    Raises:
        ClockOffError: it has.
    """
    if not services.maintenance.purge.clock_is_trusted():
        raise ClockOffError("the clock has leapt (alarm clock.leapt): no ring is changed from here")


def require_ring(operations: KeyOperations, name: str) -> RingSnapshot:
    """Return the ring ``name``; OrderRefusedError if there is none."""
    for ring in operations.rings():
        if ring.name == name:
            return ring
    raise OrderRefusedError(f"there is no ring {name!r}")
