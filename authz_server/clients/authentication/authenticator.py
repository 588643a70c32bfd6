"""Authenticates clients and resource servers: one rule for every endpoint and method."""

import hmac
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec

from authz_server.clients.authentication.credentials import CLIENT_SECRET, Credentials, Offer
from authz_server.clients.authentication.throttle import (
    MAXIMUM_ID_CHARACTERS,
    FailureThrottle,
    network_of,
)
from authz_server.clients.cache import ClientCache, ClientEntry, SecretEntry
from authz_server.clients.secrets import SecretScheme
from authz_server.errors import OAuthError

_REMEMBERED = 10_000
_K = TypeVar("_K")
_V = TypeVar("_V")


#: How exact a cause is: of two readings of one header, one is mistaken and says less.
_EXACTNESS = {"client_unknown": 0, "secret_wrong": 1}
_EXACT = 2


class _Reading(msgspec.Struct, frozen=True, gc=False):
    """One reading of the credentials and its outcome so far.

    Attributes:
        digest: of the secret offered.
        client: the client of the id, or None.
        secret: the client's secret that was offered, or None as far as that is known.
        cause: why the reading is refused; empty where it authenticates the client.
    """

    offer: Offer
    digest: bytes
    client: ClientEntry | None
    secret: SecretEntry | None
    cause: str

    @property
    def key(self) -> tuple[str, bytes]:
        """The key under which its computation is remembered, without the secret itself."""
        return self.offer.client_id[:MAXIMUM_ID_CHARACTERS], self.digest

    @property
    def imported(self) -> tuple[SecretEntry, ...]:
        """The client's secrets that only a computation can compare."""
        secrets = self.client.secrets if self.client is not None else ()
        return tuple(secret for secret in secrets if secret.imported_record)


class ClientAuthenticator:
    """Authenticates the sender of a request; all refusals look and cost alike.

    ``docs/decisions/0018-imported-secrets.md`` lists the exceptions to the equal cost.

    Args:
        directory: the clients in memory.
        secrets: the scheme of their secrets.
        throttle: slows down failures.
        clock: returns the present time.
    """

    def __init__(
        self,
        directory: ClientCache,
        secrets: SecretScheme,
        throttle: FailureThrottle,
        clock: Callable[[], datetime],
    ) -> None:
        self._directory = directory
        self._secrets = secrets
        self._throttle = throttle
        self._clock = clock
        # Compared where there is no client; no secret has this digest.
        self._no_secrets = (SecretEntry("", os.urandom(32), "", float("inf")),)
        self._decoy: tuple[SecretEntry, ...] = ()
        # Imported secrets that have authenticated their client, by id and digest.
        self._proven: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        # Computations for refused readings: the ids compared, and the one that fits or "".
        self._computed: OrderedDict[tuple[str, bytes], tuple[list[str], str]] = OrderedDict()
        self._used: dict[str, float] = {}

    def authenticate(self, credentials: Credentials, address: str) -> ClientEntry:
        """Return the client that the credentials prove.

        The right secret gets in, however many failures were counted. A failure beyond the limit
        is refused with the time to wait.

        Args:
            credentials: what the request offers.
            address: the sender's IP address.

        Raises:
            OAuthError: ``client_authentication_failed``, ``throttled``, or
                ``temporarily_unavailable`` when imported secrets cannot be checked right now.
        """
        now = self._clock().timestamp()
        readings = self._read(credentials, now)
        if _are_refused(readings) and self._directory.holds_imported_secrets:
            readings = self._compute_all(credentials, readings, address, now)
        if _are_refused(readings):
            raise self._refusal(credentials.client_id, readings, address, now)
        accepted = readings[-1]
        self._used[accepted.secret.id] = now  # type: ignore[union-attr]
        return accepted.client  # type: ignore[return-value]

    def takes_long(self, credentials: Credentials) -> bool:
        """Return whether :meth:`authenticate` would compute argon2id or wait for a slot.

        Where no client has an imported secret, the answer takes less than a microsecond.
        """
        if not self._directory.holds_imported_secrets:
            return False
        readings = self._read(credentials, self._clock().timestamp())
        return _are_refused(readings) and any(self._find_outcome(each) is None for each in readings)

    def knows(self, client_id: str) -> bool:
        """Return whether there is a client or resource server with this id."""
        return self._directory.find(client_id) is not None

    def take_last_used(self) -> dict[str, float]:
        """Return when which secret was last used since the last call (seconds since 1970)."""
        used, self._used = self._used, {}
        return used

    def _read(self, credentials: Credentials, now: float) -> list[_Reading]:
        """Return the readings up to the first that authenticates, without a computation."""
        readings: list[_Reading] = []
        for offer in credentials.offers:
            if offer.secret:
                readings.append(self._read_offer(offer, credentials.method, now))
                if not readings[-1].cause:
                    break
        return readings

    def _read_offer(self, offer: Offer, method: str, now: float) -> _Reading:
        client = self._directory.find(offer.client_id)
        digest = self._secrets.digest(offer.secret)
        found = None
        for secret in (client.secrets if client is not None else ()) or self._no_secrets:
            if secret.imported_record:
                fits = (secret.id, digest) in self._proven
            else:
                fits = hmac.compare_digest(secret.digest, digest)
            if fits and (found is None or secret.expires_at > found.expires_at):
                found = secret
        return _Reading(offer, digest, client, found, _find_cause(client, found, method, now))

    def _compute_all(
        self, credentials: Credentials, readings: list[_Reading], address: str, now: float
    ) -> list[_Reading]:
        """Return the readings up to the first that authenticates, with what computations add.

        Each reading costs its computation, whether its client has an imported secret or not, and
        whether it exists or not.
        """
        computed: list[_Reading] = []
        for reading in readings:
            try:
                computed.append(self._compute(reading, credentials.method, address, now))
            except OAuthError as busy:
                wait = self._throttle.seconds_to_wait(credentials.client_id, address, now)
                if wait:
                    raise _throttled(credentials.client_id, busy.reason, wait) from busy
                raise
            if not computed[-1].cause:
                # The other reading is forgotten: once the client is disabled it has its cost again.
                for other in computed:
                    self._computed.pop(other.key, None)
                break
        return computed

    def _compute(self, reading: _Reading, method: str, address: str, now: float) -> _Reading:
        outcome = self._find_outcome(reading)
        if outcome is not None:
            return self._conclude(reading, outcome, method, now)
        with self._secrets.slots.take(network_of(address), reading.key[0]):
            # Another request may have computed the same while this one waited.
            reading = self._read_offer(reading.offer, method, now)
            if not reading.cause:
                return reading
            outcome = self._find_outcome(reading)
            if outcome is None:
                outcome = self._compare(reading, method, now)
            return self._conclude(reading, outcome, method, now)

    def _find_outcome(self, reading: _Reading) -> str | None:
        """Return the id of the imported secret that fits, or ""; None where nothing is known.

        An earlier proof does not count for a refused reading: its speed would show.
        """
        known = self._computed.get(reading.key)
        if known is None or known[0] != [secret.id for secret in reading.imported]:
            return None
        return known[1]

    def _compare(self, reading: _Reading, method: str, now: float) -> str:
        imported = reading.imported
        found = ""
        for secret in imported or self._decoys():
            if self._secrets.verify_imported(secret.imported_record, reading.offer.secret):
                found = secret.id
                if not _find_cause(reading.client, secret, method, now):
                    break
        _remember(self._computed, reading.key, ([secret.id for secret in imported], found))
        return found

    def _decoys(self) -> tuple[SecretEntry, ...]:
        if not self._decoy:
            record = self._secrets.import_record(os.urandom(16).hex().encode())
            _, encoded = self._secrets.entry_parts(record)
            self._decoy = (SecretEntry("", b"", encoded, float("inf")),)
        return self._decoy

    def _conclude(self, reading: _Reading, outcome: str, method: str, now: float) -> _Reading:
        secret = next((each for each in reading.imported if each.id == outcome), None)
        if secret is None:
            return reading
        cause = _find_cause(reading.client, secret, method, now)
        if not cause:
            _remember(self._proven, (secret.id, reading.digest), None)
        return _Reading(reading.offer, reading.digest, reading.client, secret, cause)

    def _refusal(
        self, claimed: str, readings: Sequence[_Reading], address: str, now: float
    ) -> OAuthError:
        cause = _most_exact(readings)
        # Neither a request without a secret nor the right secret by a wrong method is a guess.
        if cause not in {"credentials_missing", "method_not_registered"}:
            wait = self._throttle.count_failure(claimed, address, now)
            if wait:
                return _throttled(claimed, cause, wait)
        return OAuthError("client_authentication_failed", cause=cause, client_id=claimed)


def _are_refused(readings: Sequence[_Reading]) -> bool:
    return not readings or bool(readings[-1].cause)


def _find_cause(
    client: ClientEntry | None, secret: SecretEntry | None, method: str, now: float
) -> str:
    """Return why the secret does not authenticate the client by this method; empty if it does."""
    if client is None:
        return "client_unknown"
    # Before the secret is looked at, so that a wrong one costs as much as the right one.
    state = ""
    if not client.enabled:
        state = "client_disabled"
    elif now < client.starts_at:
        state = "client_not_yet_valid"
    elif now >= client.expires_at:
        state = "client_expired"
    if secret is None:
        return "secret_wrong"
    if not state and now >= secret.expires_at:
        state = "secret_expired"
    if not state and client.authentication_method not in (method, CLIENT_SECRET):
        state = "method_not_registered"
    return state


def _most_exact(readings: Sequence[_Reading]) -> str:
    if not readings:
        return "credentials_missing"
    causes = [reading.cause for reading in readings]
    return max(causes, key=lambda cause: _EXACTNESS.get(cause, _EXACT))


def _throttled(client_id: str, cause: str, seconds: int) -> OAuthError:
    return OAuthError("throttled", cause, retry_after_seconds=seconds, client_id=client_id)


def _remember(memory: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    memory[key] = value
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)
