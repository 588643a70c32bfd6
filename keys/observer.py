"""Interface for key events: metrics and alarms."""

from typing import Protocol


class Observer(Protocol):
    """Receives key events. Implementations must not raise or block.

    Every method may be called from any thread.
    """

    def signed(self, backend: str, alg: str, result: str, seconds: float) -> None:
        """Count one signing request to a remote backend.

        Args:
            backend: the backend's scheme.
            alg: the algorithm.
            result: ``ok``, ``unavailable``, ``denied``, ``unusable`` or ``broken``.
            seconds: the duration of the request.
        """

    def mismatch(self, ring: str, kid: str) -> None:
        """Raise an alarm: a signature did not match the published key and was discarded."""

    def unknown_kid(self) -> None:
        """Count a presented token with an unknown ``kid``."""

    def backend_up(self, uri: str) -> None:
        """Record that a backend answers, again or for the first time."""

    def backend_down(self, uri: str, reason: str) -> None:
        """Record that a backend does not answer; ``reason`` is for the operator."""

    def vault_token(self, vault: str, ttl_seconds: float, full_ttl_seconds: float) -> None:
        """Record the remaining and the full lifetime of this process's Vault token."""

    def batch(self, size: int) -> None:
        """Count one request with ``size`` inputs."""

    def viewed(self, ring: str) -> None:
        """Record that a ring's backend was observed."""

    def alarm(self, event: str, subject: str, detail: str) -> None:
        """Raise an alarm for the operator, such as ``privilege.too_wide``."""


class SilentObserver:
    """An observer that records nothing."""

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
