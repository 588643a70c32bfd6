"""Contexts for orders on key rings in the process of the admin API."""

import threading
from collections.abc import Mapping

from authz_server.assembly.server import ServerServices
from authz_server.key_rings.backends import Role, open_backends
from authz_server.operations.keys.context import (
    KeyContext,
    VaultLogins,
    find_logins,
    make_context,
)
from keys.backend import KeyBackend
from keys.errors import KeysError


class KeyContexts:
    """Opens the contexts of orders; the backends are opened once, with the logins of orders.

    Args:
        services: the parts of the server.
    """

    def __init__(self, services: ServerServices) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._opened: tuple[VaultLogins, Mapping[str, KeyBackend]] | None = None

    def open(self, actor: str, *, looking: bool, role: Role = "order") -> KeyContext:
        """Return the context of an order or a tick.

        Args:
            actor: the recorded actor.
            role: decides which steps at the backends are permitted.
            looking: True if nothing is changed or recorded.

        Raises:
            KeysError: a key backend cannot be used.
            SettingsError: a file of a Vault's login is missing or readable by others.
        """
        with self._lock:
            logins, backends = self._opened or self._open()
            if not logins.problem:
                # A problem, such as a missing file, may be solved while the process runs.
                self._opened = logins, backends
        if role == "tick" and logins.problem and not looking:
            # A tick is done with the logins of the rotator, or not at all.
            raise KeysError(logins.problem)
        return make_context(
            self._services, logins, role, actor=actor, backends=backends, looking=looking
        )

    def _open(self) -> tuple[VaultLogins, Mapping[str, KeyBackend]]:
        services = self._services
        logins = find_logins(services.settings, "order", environ={})
        if logins.problem:
            # The server's own logins, whose backends are open.
            return logins, services.key_backends
        return logins, open_backends(
            services.settings,
            services.backend_registry,
            services.database,
            services.clock,
            logins.accesses,
            services.notify,
        )
