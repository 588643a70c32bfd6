"""Key events: signatures, backends and alarms, each passed to one function.

They are tuples because one is made for each remote signature.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class Signed(NamedTuple):
    """A signing request to a remote backend ended.

    Attributes:
        backend: the backend's scheme.
        alg: the algorithm.
        result: ``ok``, ``unavailable``, ``denied``, ``unusable`` or ``broken``.
        seconds: the duration of the request.
    """

    backend: str
    alg: str
    result: str
    seconds: float


class SignatureDiscarded(NamedTuple):
    """A signature did not match the published key ``kid``."""

    ring: str
    kid: str


class UnknownKidPresented(NamedTuple):
    """A token with an unknown ``kid`` was presented."""


class BackendAnswered(NamedTuple):
    """A backend, or one address of a Vault, answers: again or for the first time."""

    uri: str


class BackendFailed(NamedTuple):
    """A backend, or one address of a Vault, does not answer.

    Attributes:
        uri: its URI or address.
        reason: the reason, for the operator.
    """

    uri: str
    reason: str


class VaultTokenHeld(NamedTuple):
    """This process received or renewed its token for a Vault.

    Attributes:
        vault: the name of the Vault.
        ttl_seconds: the token's remaining lifetime.
        full_ttl_seconds: its lifetime when it was issued; 0: infinite.
    """

    vault: str
    ttl_seconds: float
    full_ttl_seconds: float


class BatchSent(NamedTuple):
    """A request to a remote backend had ``size`` inputs."""

    size: int


class RingObserved(NamedTuple):
    """The backend of a ring was observed."""

    ring: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """A condition that an operator must know, such as ``privilege.too_wide``."""

    event: str
    subject: str
    detail: str


KeyEvent: TypeAlias = (
    Signed
    | SignatureDiscarded
    | UnknownKidPresented
    | BackendAnswered
    | BackendFailed
    | VaultTokenHeld
    | BatchSent
    | RingObserved
    | Alarm
)
#: Receives key events, from any thread. It must not raise or block.
Notify: TypeAlias = Callable[[KeyEvent], None]


def ignore(event: KeyEvent) -> None:
    """Do nothing with an event."""
