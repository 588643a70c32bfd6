"""What the key rings and their backends tell whoever counts: metrics and alarms."""

from typing import Protocol


class Observer(Protocol):
    """Hears what happens to signatures and backends; never raises, never blocks.

    Every method may be called from any thread.
    """

    def signed(self, backend: str, alg: str, result: str, seconds: float) -> None:
        """Count one call for signatures of a remote backend.

        Args:
            backend: The backend's scheme.
            alg: The algorithm.
            result: ``ok``, ``unavailable``, ``denied``, ``unusable`` or ``broken``.
            seconds: How long the call took.
        """

    def mismatch(self, ring: str, kid: str) -> None:
        """Alarm: a signature did not belong to the published key, and was dropped."""

    def unknown_kid(self) -> None:
        """Count a token presented to us whose key nobody here knows."""

    def backend_up(self, uri: str) -> None:
        """Note that a backend answers again, or for the first time."""

    def backend_down(self, uri: str, reason: str) -> None:
        """Note that a backend does not answer; ``reason`` is for the operator."""

    def vault_token(self, vault: str, ttl_seconds: float, full_ttl_seconds: float) -> None:
        """Note how long this process's Vault token lives on, and how long it did when new."""

    def batch(self, size: int) -> None:
        """Count one call that carried ``size`` inputs."""

    def viewed(self, ring: str) -> None:
        """Note that the backend has just shown what it holds of a ring."""

    def alarm(self, event: str, subject: str, detail: str) -> None:
        """Tell of what an operator has to look at, such as ``privilege.too_wide``."""


class SilentObserver:
    """An observer for programs that count nothing."""

    def signed(self, backend: str, alg: str, result: str, seconds: float) -> None:
        """Do nothing."""

    def mismatch(self, ring: str, kid: str) -> None:
        """Do nothing."""

    def unknown_kid(self) -> None:
        """Do nothing."""

    def backend_up(self, uri: str) -> None:
        """Do nothing."""

    def backend_down(self, uri: str, reason: str) -> None:
        """Do nothing."""

    def vault_token(self, vault: str, ttl_seconds: float, full_ttl_seconds: float) -> None:
        """Do nothing."""

    def batch(self, size: int) -> None:
        """Do nothing."""

    def viewed(self, ring: str) -> None:
        """Do nothing."""

    def alarm(self, event: str, subject: str, detail: str) -> None:
        """Do nothing."""
