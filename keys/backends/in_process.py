"""Base class of backends that sign in this process with cached private keys.

Keys in memory cannot be fenced: a node that missed a change signs until its snapshot is outdated.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from keys.backend import Capabilities
from keys.errors import BackendDenied, VersionUnusable
from keys.jose.algorithms import ALGORITHMS, Algorithm, allowed_algorithms, get_algorithm
from keys.jose.signatures import PrivateKey, Signer, make_signer


@dataclass(frozen=True, slots=True)
class LoadedKey:
    """The signing function of a private key, with its algorithm."""

    alg: str
    sign: Signer


class InProcessBackend(ABC):
    """Signs with private keys that a subclass loads.

    Args:
        experimental: whether experimental algorithms are enabled.
    """

    caps = Capabilities(algs=allowed_algorithms(experimental=False), in_process=True)

    def __init__(self, *, experimental: bool = False) -> None:
        if experimental:
            self.caps = replace(self.caps, algs=allowed_algorithms(experimental=True))
        self._loaded: dict[tuple[str, str], LoadedKey] = {}

    def sign(self, ring: str, ref: str, alg: str, inputs: Sequence[bytes]) -> list[bytes]:
        """Sign in this process; the first signature of a version loads its private key."""
        loaded = self._loaded.get((ring, ref))
        if loaded is None:
            private_key, own = self._load(ring, ref)
            if own not in ALGORITHMS:
                raise VersionUnusable(
                    f"version {ref} of {ring!r} is for the unknown algorithm {own}"
                )
            loaded = LoadedKey(own, make_signer(private_key, self._require_allowed(own)))
            self._loaded[ring, ref] = loaded
        if loaded.alg != alg:
            raise VersionUnusable(f"version {ref} of {ring!r} is for {loaded.alg}, not for {alg}")
        return [loaded.sign(data) for data in inputs]

    def forget(self, ring: str, ref: str) -> bool:
        """Drop the private key from memory; the next signature loads it again."""
        return self._loaded.pop((ring, ref), None) is not None

    @abstractmethod
    def _load(self, ring: str, ref: str) -> tuple[PrivateKey, str]:
        """Return the private key of a version and its algorithm, or raise a BackendError."""

    def _forget_below(self, ring: str, floor: int) -> None:
        for name, ref in list(self._loaded):
            if name == ring and int(ref) < floor:
                del self._loaded[name, ref]

    def _require_allowed(self, alg: str) -> Algorithm:
        algorithm = get_algorithm(alg)
        if alg not in self.caps.algs:
            raise BackendDenied(
                f"{alg} is experimental, and experimental algorithms are not enabled"
            )
        return algorithm
