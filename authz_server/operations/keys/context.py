"""The context of an operation on keys: services, backends opened under one identity, a rotator."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from authz_server.assembly import Services
from authz_server.assembly.operator import operator_services
from authz_server.key_rings.alarms import KeyObserver
from authz_server.key_rings.backends import Role, open_backends, ring_rules
from authz_server.key_rings.standby import StandbyReadiness
from authz_server.key_rings.vaults import TOKEN_VARIABLE, Identity, vault_accesses
from authz_server.settings import Settings, SettingsError
from keys.backend import KeyBackend
from keys.backends.vault.settings import VaultAccess
from keys.errors import ClockOffError
from keys.lifecycle.rotator import Rotator
from keys.lifecycle.state import get_ring
from keys.observer import Observer, SilentObserver
from keys.signing_key import RingSnapshot


class Notices(SilentObserver):
    """Collects what an operation reports to the operator.

    Attributes:
        outages: Why a backend does not answer, by its URI.
        alarms: Details by the alarm's event and subject.
        remarks: Sentences about what was left undone and stops nothing.
    """

    def __init__(self) -> None:
        self.outages: dict[str, str] = {}
        self.alarms: dict[tuple[str, str], str] = {}
        self.remarks: list[str] = []

    def clear(self) -> None:
        """Forget outages and alarms of an earlier round."""
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
class VaultLogins:
    """The logins to the Vaults.

    Attributes:
        identity: The identity that was asked for.
        accesses: By the Vault's name.
        problem: Why the server's logins are used in its place; empty where they are not.
    """

    identity: Identity
    accesses: Mapping[str, VaultAccess]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class KeyContext:
    """The parts that an operation on keys works with.

    Attributes:
        services: Every other part.
        backends: The open backends by URI, as ``identity``.
        rotator: Carries out orders.
        notices: What is reported to the operator.
        recorder: Receives alarms; keeps them in ``notices``, and records them where changes are
            made.
        identity: The identity under which the Vaults are asked.
        actor: Who is recorded.
    """

    services: Services
    backends: Mapping[str, KeyBackend]
    rotator: Rotator
    notices: Notices = field(repr=False)
    recorder: Observer = field(repr=False)
    identity: Identity
    actor: str

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self.services.settings

    def now(self) -> datetime:
        """Return the present by the database's clock, by which rings are planned."""
        return self.services.clock() + timedelta(seconds=self.clock_offset_seconds())

    def clock_offset_seconds(self) -> float:
        """Return the database's clock less this machine's."""
        return self.services.key_store.clock_offset_seconds()

    def rings(self) -> tuple[RingSnapshot, ...]:
        """Return every ring by name, dated by the database's clock."""
        return self.services.key_store.load_rings(self.now())

    def get_ring(self, name: str) -> RingSnapshot:
        """Return the ring ``name``; OrderRefusedError if there is none."""
        return get_ring(self.rings(), name)


def find_logins(
    settings: Settings,
    role: Role,
    *,
    looking: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> VaultLogins:
    """Return how the Vaults are reached: as the operator with a token, else as the rotator.

    Where the rotator's login cannot be used, an order is carried out as the server: what concerns
    the JWKS and introspection must not wait for a file, and the Vault refuses the rest.

    Args:
        settings: Checked already.
        role: Decides what may be asked of the backends.
        looking: Nothing is changed.
        environ: The environment variables.

    Raises:
        SettingsError: A file of a login is missing or open to others.
    """
    identity: Identity = "operator" if environ.get(TOKEN_VARIABLE, "").strip() else "rotator"
    problem = ""
    try:
        return VaultLogins(identity, vault_accesses(settings, identity, environ))
    except SettingsError as error:
        if identity == "operator" or (role == "tick" and not looking):
            raise
        if not looking:
            problem = str(error)
    return VaultLogins(identity, vault_accesses(settings, "server", environ), problem)


@contextmanager
def open_context(
    settings: Settings, logins: VaultLogins, role: Role, *, actor: str, looking: bool = False
) -> Iterator[KeyContext]:
    """Yield the context of an operation.

    Args:
        settings: Checked already.
        logins: How the Vaults are reached.
        role: Decides what may be asked of the backends.
        actor: Who is recorded.
        looking: Nothing is changed or recorded.

    Raises:
        KeysError: A key backend cannot be used.
    """
    with operator_services(settings, logins.accesses) as services:
        notices = Notices()
        recorder = notices if looking else KeyObserver(services.record, notices)
        backends = open_backends(
            settings,
            services.backend_registry,
            services.database,
            services.clock,
            logins.accesses,
            recorder,
        )
        rotator = Rotator(
            store=services.key_store,
            backends=backends,
            rules=ring_rules(settings, role),
            clock=services.clock,
            timing=settings.keys.timing(),
            observer=recorder,
            readiness=StandbyReadiness(services.database, settings.keys, services.clock),
            # Looking writes down nothing, not even the state of the clock.
            require_steady=(lambda: None) if looking else partial(require_steady_clock, services),
        )
        yield KeyContext(services, backends, rotator, notices, recorder, logins.identity, actor)


def require_steady_clock(services: Services) -> None:
    """Refuse to plan by a clock that has leapt: see ``authz_server.database.clock``.

    Raises:
        ClockOffError: It has.
    """
    if not services.purge.clock_is_trusted():
        raise ClockOffError("the clock has leapt (alarm clock.leapt): no ring is changed from here")
