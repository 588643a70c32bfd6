"""The context of an operation on keys: services, backends, a rotator and the actor."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from authz_server.assembly import Services
from authz_server.assembly.operator import operator_services
from authz_server.audit.notifier import Notifier
from authz_server.key_rings.backends import Role, open_backends, ring_rules
from authz_server.key_rings.standby import StandbyReadiness
from authz_server.key_rings.vaults import TOKEN_VARIABLE, Identity, vault_accesses
from authz_server.settings import Settings, SettingsError
from authz_server.tokens.purging import Purge
from keys.backend import KeyBackend
from keys.backends.vault.settings import VaultAccess
from keys.errors import ClockOffError
from keys.events import Alarm, BackendAnswered, BackendFailed, KeyEvent, Notify
from keys.lifecycle.rotator import Rotator
from keys.lifecycle.state import get_ring
from keys.signing_key import RingSnapshot

_logger = logging.getLogger(__name__)


class Notices:
    """Collects the notices of an operation for the operator.

    Attributes:
        outages: the reasons of outages, by the URI of the backend.
        alarms: the details of alarms, by event and subject.
        remarks: sentences about steps that were skipped.
    """

    def __init__(self) -> None:
        self.outages: dict[str, str] = {}
        self.alarms: dict[tuple[str, str], str] = {}
        self.remarks: list[str] = []

    def clear(self) -> None:
        """Forget the outages and alarms of an earlier round."""
        self.outages.clear()
        self.alarms.clear()

    def receive(self, event: KeyEvent) -> None:
        """Keep an alarm, and an outage while it lasts."""
        match event:
            case BackendFailed(uri, reason):
                self.outages[uri] = reason
            case BackendAnswered(uri):
                self.outages.pop(uri, None)
            case Alarm(name, subject, detail):
                self.alarms[name, subject] = detail


@dataclass(frozen=True, slots=True)
class VaultLogins:
    """The logins to the Vaults.

    Attributes:
        identity: the requested identity.
        accesses: the access to each Vault, by name.
        problem: the reason for which the server's logins are used instead; empty if they are not.
    """

    identity: Identity
    accesses: Mapping[str, VaultAccess]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class KeyContext:
    """The parts that an operation on keys uses.

    Attributes:
        services: the other parts.
        backends: the backends by URI, opened as ``identity``.
        rotator: executes orders.
        notices: the notices for the operator.
        notify: keeps key events in ``notices``, and records alarms if the operation makes changes.
        identity: the identity of the logins to the Vaults.
        actor: the recorded actor.
    """

    services: Services
    backends: Mapping[str, KeyBackend]
    rotator: Rotator
    notices: Notices = field(repr=False)
    notify: Notify = field(repr=False)
    identity: Identity
    actor: str

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self.services.settings

    def now(self) -> datetime:
        """Return the present time of the database's clock, which plans use."""
        return self.services.clock() + timedelta(seconds=self.clock_offset_seconds())

    def clock_offset_seconds(self) -> float:
        """Return the database's clock minus this machine's."""
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
    """Return the logins to the Vaults: those of the operator with a token, else of the rotator.

    If the rotator's login cannot be used, an order is executed as the server. The changes to the
    JWKS and introspection must not wait for a file, and the Vault refuses the others. If the
    server's login is missing too, the log-in fails where an order needs it.

    Args:
        settings: the checked settings.
        role: decides which steps at the backends are permitted.
        looking: True if nothing is changed.
        environ: the environment variables.

    Raises:
        SettingsError: a file of a login is missing or readable by others, for a scheduled tick.
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
    accesses = vault_accesses(settings, "server", environ, require_files=False)
    return VaultLogins(identity, accesses, problem)


@contextmanager
def open_context(  # noqa: PLR0913 - its parts, by name
    settings: Settings,
    logins: VaultLogins,
    role: Role,
    *,
    actor: str,
    looking: bool = False,
    warn: Callable[[str], None] = _logger.warning,
) -> Iterator[KeyContext]:
    """Yield the context of an operation.

    Args:
        settings: the checked settings.
        logins: the logins to the Vaults.
        role: decides which steps at the backends are permitted.
        actor: the recorded actor.
        looking: True if nothing is changed or recorded.
        warn: receives a sentence if the schema is another release's and was only read.

    Raises:
        KeysError: a key backend cannot be used.
        SchemaError: the schema is another release's, and something is to be changed.
    """
    with operator_services(settings, logins.accesses, warn=warn) as services:
        if not looking:
            # Before a step at a backend, which no transaction takes back.
            services.schema_guard.require()
        yield make_context(services, logins, role, actor=actor, looking=looking)


def make_context(  # noqa: PLR0913 - its parts, by name
    services: Services,
    logins: VaultLogins,
    role: Role,
    *,
    actor: str,
    backends: Mapping[str, KeyBackend] | None = None,
    looking: bool = False,
) -> KeyContext:
    """Return the context of an operation with the parts of a process that runs already.

    Args:
        services: the parts of the process.
        logins: the logins to the Vaults.
        role: decides which steps at the backends are permitted.
        actor: the recorded actor.
        backends: the open backends by URI; None: they are opened with the logins.
        looking: True if nothing is changed or recorded.

    Raises:
        KeysError: a key backend cannot be used.
    """
    settings = services.settings
    notices = Notices()
    notify: Notify = notices.receive
    if not looking:
        services.open_recorders()
        notify = Notifier(lambda kind: (notices.receive, *services.find_receivers(kind))).notify
    if backends is None:
        backends = open_backends(
            settings,
            services.backend_registry,
            services.database,
            services.clock,
            logins.accesses,
            notify,
        )
    rotator = Rotator(
        store=services.key_store,
        backends=backends,
        rules=ring_rules(settings, role),
        clock=services.clock,
        timing=settings.keys.timing(),
        notify=notify,
        readiness=StandbyReadiness(services.database, settings.keys, services.clock),
        require_steady=partial(require_steady_clock, services),
        limit=_PassedTime(services.purge) if role == "order" else services.purge.limit,
    )
    return KeyContext(services, backends, rotator, notices, notify, logins.identity, actor)


class _PassedTime:
    """Limits times of an order to what has certainly passed; a leap of the clock is one alarm."""

    def __init__(self, purge: Purge) -> None:
        self._purge = purge
        self._is_checked = False

    def __call__(self, now: datetime) -> datetime:
        """Return ``now``, or the latest time that has certainly passed."""
        if not self._is_checked:
            self._is_checked = True
            self._purge.check_clock()
        return self._purge.limit(now)


def require_steady_clock(services: Services) -> None:
    """Require a clock that has not leapt; see ``authz_server.database.clock``.

    Raises:
        ClockOffError: it has.
    """
    if not services.purge.clock_is_trusted():
        raise ClockOffError("the clock has leapt (alarm clock.leapt): no ring is changed from here")
