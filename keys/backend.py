"""Interface of key backends, which hold private keys and sign with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self, runtime_checkable


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities of a backend to sign.

    Attributes:
        algs: names of the algorithms that it creates keys for.
        in_process: the private key is in this process; signatures of other backends are verified
            before release.
    """

    algs: frozenset[str]
    in_process: bool


@dataclass(frozen=True, slots=True)
class Version:
    """The public side of one version that a backend holds.

    Attributes:
        ref: the version's number, from 1, in decimal; higher is newer, and numbers are not reused.
        jwk: the public key, with the members of its type only.
        created_at: the time of creation at the backend.
    """

    ref: str
    jwk: Mapping[str, str]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class BackendView:
    """A backend's observed state of one ring.

    Attributes:
        versions: lowest first. A version missing here is not a removal: reads may be outdated.
        sign_floor: the lowest version that may sign, if configured at the backend; else None. Never
            derived from ``versions``: a floor is an order that the ring follows.
        verify_floor: the lowest version whose signatures are valid; likewise.
        disabled: the ring is disabled at the backend.
    """

    versions: tuple[Version, ...]
    sign_floor: str | None
    verify_floor: str | None
    disabled: bool


@dataclass(frozen=True, slots=True)
class Health:
    """The availability of a backend, with a detail for operators."""

    usable: bool
    detail: str


class TracedSignature(bytes):
    """A signature with the id of the request to a remote backend.

    Attributes:
        request_id: the backend's id of the request in its audit log.
    """

    request_id: str

    def __new__(cls, signature: bytes, request_id: str) -> Self:
        """Return ``signature`` with its ``request_id``."""
        traced = super().__new__(cls, signature)
        traced.request_id = request_id
        return traced


class KeyBackend(Protocol):
    """Holds private keys by ring and version and signs with them.

    A backend that can also create, fence or delete versions implements :class:`Creates`,
    :class:`Fences` or :class:`Destroys` as well, and one that can lose the key under which they are
    encrypted :class:`Abandons`. Every method may raise the four classes of
    ``keys.errors.BackendError`` and nothing else. All methods may be called from several threads,
    and in every process after a fork.
    """

    @property
    def scheme(self) -> str:
        """The URI scheme of this kind of backend."""

    @property
    def caps(self) -> Capabilities:
        """The capabilities of this backend."""

    def describe_versions(self, ring: str) -> BackendView:
        """Return the public side of ``ring``; an unknown ring has no versions."""

    def sign(self, ring: str, ref: str, alg: str, inputs: Sequence[bytes]) -> list[bytes]:
        """Sign each input with exactly the version ``ref``.

        Returns:
            One signature per input, in order, in JOSE's encoding (RFC 7518, 3: ECDSA as r then s,
            not DER); a ``TracedSignature`` if the backend keeps an audit log.

        Raises:
            VersionUnusable: the version is not held, is fenced, or is not of algorithm ``alg``.
        """

    def forget(self, ring: str, ref: str) -> bool:
        """Drop this process's copy of a version; its next use reads it again.

        Called if the version signed with another key than the published one.

        Returns:
            Whether there was a copy, so that a retry makes sense.
        """

    def health(self) -> Health:
        """Return whether the backend would answer now."""


@runtime_checkable
class Creates(Protocol):
    """Creates keys. The versions of another backend are created there, and adopted."""

    def create(self, ring: str, alg: str) -> Version:
        """Create the next version of ``ring``.

        Raises:
            KeysError: there is no such algorithm.
        """


@runtime_checkable
class Abandons(Protocol):
    """Encrypts its keys under another key, and creates none where that has changed."""

    def abandon(self, ring: str) -> None:
        """Permit the next version of ``ring`` under the present key, which opens no older one."""


@runtime_checkable
class Fences(Protocol):
    """Stops old versions from signing, for every client of the backend.

    The floors in the ``BackendView`` of another backend are ignored.
    """

    def fence(self, ring: str, sign_floor: str) -> None:
        """Stop versions below ``sign_floor`` from signing."""


@runtime_checkable
class Destroys(Protocol):
    """Deletes private keys."""

    def destroy(self, ring: str, verify_floor: str) -> None:
        """Delete versions below ``verify_floor`` permanently.

        Raises:
            VersionUnusable: the floor is not a version held, so that everything would be deleted.
        """
