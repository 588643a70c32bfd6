"""The interface of a place that holds private keys and signs with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self


@dataclass(frozen=True, slots=True)
class Caps:
    """What a backend can do.

    Attributes:
        algs: Names of the algorithms that it makes keys for.
        in_process: The private key is in this process; other signatures are verified before
            release.
        prehash: Only a digest of what is signed leaves this process.
        batch: Several inputs of one ``sign`` call cost one round trip.
        can_create: ``create`` makes new versions.
        can_fence: ``fence`` stops old versions from signing, whoever asks.
        can_destroy: ``destroy`` deletes old versions.
    """

    algs: frozenset[str]
    in_process: bool
    prehash: bool
    batch: bool
    can_create: bool
    can_fence: bool
    can_destroy: bool


@dataclass(frozen=True, slots=True)
class Version:
    """The public side of one version that a backend holds.

    Attributes:
        ref: The version's number, from 1, in decimal; higher is newer and no number is used twice.
        jwk: The public key, members of its type only.
        created_at: When the backend made it.
    """

    ref: str
    jwk: Mapping[str, str]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class BackendView:
    """What a backend shows of one ring.

    Attributes:
        versions: Lowest first. A version missing here is no removal: reads may be old.
        sign_floor: Lowest version that may sign, where the backend was told one; else None. Never
            derived from ``versions``: a floor is an order, and the ring follows it.
        verify_floor: Lowest version whose signatures still count; likewise.
        disabled: The ring was switched off at the backend.
    """

    versions: tuple[Version, ...]
    sign_floor: str | None
    verify_floor: str | None
    disabled: bool


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a backend would answer, and what an operator should know about it."""

    usable: bool
    detail: str


class TracedSignature(bytes):
    """A signature that knows which call of a remote backend made it.

    Attributes:
        request_id: The backend's own id of the call, as its audit log has it.
    """

    request_id: str

    def __new__(cls, signature: bytes, request_id: str) -> Self:
        """Return ``signature`` with its ``request_id``."""
        traced = super().__new__(cls, signature)
        traced.request_id = request_id
        return traced


class KeyBackend(Protocol):
    """Holds private keys by ring and version and signs with them.

    Every method may raise the four classes of ``keys.errors.BackendError`` and nothing else. All
    methods may be called from several threads, and after a fork from each process.
    """

    @property
    def scheme(self) -> str:
        """The scheme of the URIs that name this kind of backend."""

    @property
    def caps(self) -> Caps:
        """What this backend can do."""

    def view(self, ring: str) -> BackendView:
        """Return the public side of ``ring``; an unknown ring has no versions."""

    def sign(self, ring: str, ref: str, alg: str, inputs: Sequence[bytes]) -> list[bytes]:
        """Sign each input with exactly the version ``ref``.

        Returns:
            One signature per input, in order, in the form JOSE uses (RFC 7518, 3: ECDSA as r then
            s, no DER); a ``TracedSignature`` where the backend keeps an audit log.

        Raises:
            VersionUnusable: The version is not held, is fenced, or is not of algorithm ``alg``.
        """

    def create(self, ring: str, alg: str) -> Version:
        """Make the next version of ``ring``; BackendDenied if this backend cannot.

        Raises:
            KeysError: There is no such algorithm.
        """

    def fence(self, ring: str, sign_floor: str) -> None:
        """Stop versions below ``sign_floor`` from signing; BackendDenied if this backend cannot."""

    def destroy(self, ring: str, verify_floor: str) -> None:
        """Delete versions below ``verify_floor`` for good; BackendDenied if this backend cannot.

        Raises:
            VersionUnusable: The floor is not a version held, so everything would be deleted.
        """

    def forget(self, ring: str, ref: str) -> bool:
        """Forget what this process keeps of a version; its next use reads it again.

        Called where the version signed with another key than the published one.

        Returns:
            Whether anything was kept, so that another attempt makes sense.
        """

    def health(self) -> Health:
        """Say whether the backend would answer now."""
