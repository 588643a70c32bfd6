"""Compares imported secrets by argon2id, and keeps the latest outcomes."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from authz_server.clients.authentication.slots import FairSlots
from authz_server.clients.authentication.throttle import (
    MAXIMUM_ID_CHARACTERS,
    counted_id,
    network_of,
)
from authz_server.clients.cache import SecretEntry
from authz_server.clients.secrets import SecretScheme

_REMEMBERED = 10_000
_K = TypeVar("_K")
_V = TypeVar("_V")


class ImportedSecrets:
    """Compares offered secrets with imported ones.

    Outcomes are kept by the digest of the secret.

    Args:
        secrets: the scheme of secrets, with the number of computations at once.
    """

    def __init__(self, secrets: SecretScheme) -> None:
        self._secrets = secrets
        self._slots = FairSlots(secrets.argon2_concurrency)
        self._dummy: tuple[SecretEntry, ...] = ()
        # Imported secrets that have authenticated their client, by id and digest.
        self._proven: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        # Computations for refused readings: the compared ids, and the one that matches or "".
        self._computed: OrderedDict[tuple[str, bytes], tuple[list[str], str]] = OrderedDict()

    def is_proven(self, secret_id: str, digest: bytes) -> bool:
        """Return whether this secret has authenticated its client by a proof of this digest."""
        return (secret_id, digest) in self._proven

    def note_proven(self, secret_id: str, digest: bytes) -> None:
        """Remember that a secret has authenticated its client."""
        _remember(self._proven, (secret_id, digest), None)

    def forget(self, client_id: str, digest: bytes) -> None:
        """Forget the outcome for a client id and a proof of this digest."""
        self._computed.pop(_key(client_id, digest), None)

    def find_outcome(
        self, client_id: str, digest: bytes, imported: Sequence[SecretEntry]
    ) -> str | None:
        """Return the id of the secret that matches, or ""; None if there is no outcome.

        A proven secret is not used as an outcome: the speed of a refusal would reveal it.
        """
        known = self._computed.get(_key(client_id, digest))
        if known is None or known[0] != [secret.id for secret in imported]:
            return None
        return known[1]

    def compare(self, client_id: str, proof: bytes, imported: Sequence[SecretEntry]) -> str:
        """Return the id of the secret that matches, or "", after one computation for each.

        If there is no secret, a dummy is compared. Call this in a slot.
        """
        fitting = [
            secret
            for secret in imported or self._dummies()
            if self._secrets.verify_imported(secret.imported_record, proof)
        ]
        found = max(fitting, key=lambda secret: secret.expires_at).id if fitting else ""
        key = _key(client_id, self._secrets.digest(proof))
        _remember(self._computed, key, ([secret.id for secret in imported], found))
        return found

    def slot(self, client_id: str, address: str) -> AbstractContextManager[None]:
        """Return a slot for one computation, to be held by a ``with`` statement.

        Raises:
            OAuthError: ``temporarily_unavailable`` on entry; no slot became free in time.
        """
        return self._slots.take(network_of(address), counted_id(client_id))

    def _dummies(self) -> tuple[SecretEntry, ...]:
        if not self._dummy:
            record = self._secrets.import_record(os.urandom(16).hex().encode())
            _, encoded = self._secrets.entry_parts(record)
            self._dummy = (SecretEntry("", b"", encoded, float("inf")),)
        return self._dummy


def _key(client_id: str, digest: bytes) -> tuple[str, bytes]:
    return client_id[:MAXIMUM_ID_CHARACTERS], digest


def _remember(memory: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    memory[key] = value
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)
