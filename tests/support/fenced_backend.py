"""A key backend in memory with every power: fences, floors, a switch, outages, late readings."""

from collections.abc import Sequence
from dataclasses import replace

from keys.backend import BackendView, Version
from keys.backends.local.sql import LocalBackend
from keys.errors import BackendUnavailable, VersionUnusable
from keys.memory import MemoryEncryptedKeyStorage


class FencedBackend:
    """Behaves as transit does; a test sets its attributes.

    Attributes:
        sign_floor: by ring, the lowest version that signs.
        verify_floor: by ring, the lowest version shown.
        away: every call fails.
        disabled: the key is switched off.
        late: how many of the newest versions a reading does not show yet.
        hidden: the versions that a reading leaves out.
        created: how many versions were made.
    """

    scheme = "fenced"

    def __init__(self, clock) -> None:
        self._local = LocalBackend(MemoryEncryptedKeyStorage(), bytes(32), clock)
        self.caps = replace(self._local.caps, in_process=False)
        self.sign_floor: dict[str, int] = {}
        self.verify_floor: dict[str, int] = {}
        self.away = self.disabled = False
        self.late = 0
        self.hidden: set[int] = set()
        self.created = 0

    def describe_versions(self, ring: str) -> BackendView:
        self._require_present()
        versions = self._local.describe_versions(ring).versions
        shown = versions[: len(versions) - self.late]
        verify_floor = self.verify_floor.get(ring, 1)
        shown = tuple(
            version
            for version in shown
            if int(version.ref) >= verify_floor and int(version.ref) not in self.hidden
        )
        if not versions:
            return BackendView((), None, None, disabled=self.disabled)
        sign_floor = max(verify_floor, self.sign_floor.get(ring, 1))
        return BackendView(shown, str(sign_floor), str(verify_floor), disabled=self.disabled)

    def sign(self, ring: str, ref: str, alg: str, inputs: Sequence[bytes]) -> list[bytes]:
        self._require_present()
        floor = max(self.sign_floor.get(ring, 1), self.verify_floor.get(ring, 1))
        if self.disabled or (ref.isdecimal() and int(ref) < floor):
            raise VersionUnusable(f"version {ref} may not sign")
        return self._local.sign(ring, ref, alg, inputs)

    def create(self, ring: str, alg: str) -> Version:
        self._require_present()
        self.created += 1
        return self._local.create(ring, alg)

    def fence(self, ring: str, sign_floor: str) -> None:
        self._require_present()
        self.sign_floor[ring] = max(int(sign_floor), self.sign_floor.get(ring, 1))

    def destroy(self, ring: str, verify_floor: str) -> None:
        self._require_present()
        self._local.destroy(ring, verify_floor)
        self.verify_floor[ring] = int(verify_floor)

    def forget(self, ring: str, ref: str) -> bool:
        return self._local.forget(ring, ref)

    def health(self):
        return self._local.health()

    def exchange_keys(self, other: "FencedBackend") -> None:
        """Show the keys of another backend under the same numbers from now on."""
        self._local = other._local  # noqa: SLF001 - the same class

    def _require_present(self) -> None:
        if self.away:
            raise BackendUnavailable("away", 1)
