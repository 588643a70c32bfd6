"""The parts of the key rings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from sqlalchemy.exc import OperationalError

from authz_server.assembly.base import BaseServices
from authz_server.database.change_feed import ChangeSet
from keys.errors import StoreUnavailable

if TYPE_CHECKING:
    from authz_server.key_rings.store import SqlKeyStore
    from keys.backend import KeyBackend
    from keys.backends.registry import BackendRegistry
    from keys.ring import KeyRings
    from keys.signer import OnProof


class KeyServices(BaseServices):
    """The parts of the key rings."""

    @cached_property
    def key_store(self) -> SqlKeyStore:
        """Reads and writes the tables of the key rings."""
        from authz_server.key_rings.store import SqlKeyStore

        return SqlKeyStore(self.transaction, self.database.reading)

    @cached_property
    def backend_registry(self) -> BackendRegistry:
        """The key backends that can be opened, built in or from a plugin."""
        from authz_server.key_rings.backends import collect_backends

        return collect_backends(self.plugins)

    @cached_property
    def key_backends(self) -> Mapping[str, KeyBackend]:
        """The open backends of the settings' rings, by URI."""
        from authz_server.key_rings.backends import open_backends
        from authz_server.key_rings.vaults import vault_accesses

        vaults = vault_accesses(self.settings, "server") if self._vaults is None else self._vaults
        return open_backends(
            self.settings,
            self.backend_registry,
            self.database,
            self.clock,
            vaults,
            self.notify,
        )

    @cached_property
    def key_rings(self) -> KeyRings:
        """The key rings, for verifying only; no backend is opened."""
        return self._make_key_rings({})

    def _make_key_rings(
        self,
        backends: Mapping[str, KeyBackend],
        on_proof: OnProof = lambda _kid, _request_id: None,
    ) -> KeyRings:
        from keys.ring import KeyRings

        return KeyRings(
            self.key_store,
            backends,
            self.clock,
            self.settings.keys.default_ring,
            timing=self.settings.keys.timing(),
            notify=self.notify,
            on_proof=on_proof,
        )

    def _refresh_keys(self, changes: ChangeSet) -> None:
        """Load the key rings, without their backends: the change feed is locked meanwhile.

        Raises:
            sqlalchemy.exc.OperationalError: the rings cannot be read.
        """
        if changes.everything or "key" in changes.subjects:
            try:
                self.key_rings.load()
            except StoreUnavailable as error:
                # The feed must not count the change as seen: a key may have been revoked.
                raise OperationalError("the key rings", None, error) from error
