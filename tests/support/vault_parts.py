"""Our own side of a Vault in tests: access, clients, transit backends for many rings, an ear."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keys.backend import BackendView, Version
from keys.backends.vault.client import VaultClient
from keys.backends.vault.settings import VaultAccess, VaultLogin
from keys.backends.vault.transit import TransitBackend


def token_access(*addresses: str, token: str, **settings: Any) -> VaultAccess:
    """Return access by a token that somebody made."""
    login = VaultLogin(method="token", token=token)
    return VaultAccess(addresses=addresses, login=login, **settings)


def approle_access(
    *addresses: str, role_id: str, secret_id_file: Path, wrapped: bool = False, **settings: Any
) -> VaultAccess:
    """Return access by AppRole."""
    login = VaultLogin(
        method="approle",
        role_id=role_id,
        secret_id_file=str(secret_id_file),
        secret_id_wrapped=wrapped,
    )
    return VaultAccess(addresses=addresses, login=login, **settings)


@contextmanager
def open_client(access: VaultAccess, **options: Any) -> Iterator[VaultClient]:
    """Give a client that is closed in the end."""
    client = VaultClient(access, **options)
    try:
        yield client
    finally:
        client.close()


def own_token(client: VaultClient) -> Mapping[str, Any]:
    """Return what the Vault shows of the client's own token."""
    return client.call("GET", "auth/token/lookup-self", repeatable=True).body["data"]


class TransitKeys:
    """One backend for each ring's own transit key, as a program has them, seen as one backend."""

    scheme = TransitBackend.scheme
    caps = TransitBackend.caps

    def __init__(self, client: VaultClient, mount: str) -> None:
        self._client = client
        self._mount = mount
        self._opened: dict[str, TransitBackend] = {}

    def open(self, ring: str) -> TransitBackend:
        """Return the backend of one ring."""
        made = TransitBackend(self._client, self._mount, ring, ring)
        return self._opened.setdefault(ring, made)

    def describe_versions(self, ring: str) -> BackendView:
        return self.open(ring).describe_versions(ring)

    def sign(self, ring: str, ref: str, alg: str, inputs: Sequence[bytes]) -> list[bytes]:
        return self.open(ring).sign(ring, ref, alg, inputs)

    def create(self, ring: str, alg: str) -> Version:
        return self.open(ring).create(ring, alg)

    def fence(self, ring: str, sign_floor: str) -> None:
        self.open(ring).fence(ring, sign_floor)

    def destroy(self, ring: str, verify_floor: str) -> None:
        self.open(ring).destroy(ring, verify_floor)

    def forget(self, ring: str, ref: str) -> bool:
        return self.open(ring).forget(ring, ref)

    def health(self):
        return self.open("contract-ring").health()
