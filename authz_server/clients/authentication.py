"""Authenticates clients and resource servers: one rule for every endpoint and method."""

import hmac
import os
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

from authz_server.clients.credentials import Credentials, Offer
from authz_server.clients.directory import ClientDirectory, ClientEntry, SecretEntry
from authz_server.clients.secrets import SecretScheme
from authz_server.clients.throttle import FailureThrottle
from authz_server.errors import OAuthError

_REMEMBERED = 10_000


class ClientAuthenticator:
    """Tells who sends a request; unknown, disabled, expired and wrong cost and answer alike.

    Args:
        directory: the clients in memory.
        secrets: the scheme of their secrets.
        throttle: slows down failures.
        clock: returns the present time.
    """

    def __init__(
        self,
        directory: ClientDirectory,
        secrets: SecretScheme,
        throttle: FailureThrottle,
        clock: Callable[[], datetime],
    ) -> None:
        self._directory = directory
        self._secrets = secrets
        self._throttle = throttle
        self._clock = clock
        # What is compared where there is no client: nobody's secret has this digest.
        self._nobody = (SecretEntry("", os.urandom(32), "", float("inf")),)
        self._nobody_imported = ""
        self._proven: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._used: dict[str, float] = {}

    def authenticate(self, credentials: Credentials, source: str) -> ClientEntry:
        """Return the client that the credentials prove.

        Args:
            credentials: what the request offers.
            source: the sender's address.

        Raises:
            OAuthError: ``client_authentication_failed``, ``throttled``, or
                ``temporarily_unavailable`` when imported secrets cannot be checked right now.
        """
        now = self._clock().timestamp()
        claimed = credentials.client_id
        wait = self._throttle.seconds_to_wait(claimed, source, now)
        if wait:
            raise OAuthError("throttled", retry_after_seconds=wait, client_id=claimed)
        for offer in credentials.offers:
            client = self._prove(credentials.method, offer, now)
            if client is not None:
                return client
        self._spend_like_imported(credentials)
        self._throttle.count_failure(claimed, source, now)
        raise OAuthError("client_authentication_failed", client_id=claimed)

    def knows(self, client_id: str) -> bool:
        """Tell whether there is a client or resource server with this id."""
        return self._directory.find(client_id) is not None

    def take_last_used(self) -> dict[str, float]:
        """Return when which secret was last used since the last call (seconds since 1970)."""
        used, self._used = self._used, {}
        return used

    def _prove(self, method: str, offer: Offer, now: float) -> ClientEntry | None:
        client = self._directory.find(offer.client_id)
        digest = self._secrets.digest(offer.secret)
        usable = client is not None and client.is_usable(now)
        fits = client is not None and client.authentication_method == method
        used = None
        for secret in client.secrets if client and client.secrets else self._nobody:
            # Only who gets in may profit from an earlier proof: its speed would tell others of it.
            counts = usable and fits and now < secret.expires_at
            if self._matches(secret, digest, offer, use_proof=counts) and counts:
                used = secret
        if used is None or not offer.secret:
            return None
        self._used[used.id] = now
        return client

    def _matches(
        self, secret: SecretEntry, digest: bytes, offer: Offer, *, use_proof: bool
    ) -> bool:
        if not secret.imported_record:
            return hmac.compare_digest(secret.digest, digest)
        if use_proof and (secret.id, digest) in self._proven:
            return True
        if not self._secrets.verify_imported(secret.imported_record, offer.secret):
            return False
        self._proven[secret.id, digest] = None
        while len(self._proven) > _REMEMBERED:
            self._proven.popitem(last=False)
        return True

    def _spend_like_imported(self, credentials: Credentials) -> None:
        """Spend what an imported secret would have cost, so that having one does not show.

        Only while some client has such a secret; for those who have, it has been spent.
        """
        if not self._directory.holds_imported_secrets:
            return
        if not self._nobody_imported:
            self._nobody_imported = self._secrets.import_record(os.urandom(16).hex().encode())
        record = self._nobody_imported.partition("$")[2]
        for offer in credentials.offers:
            client = self._directory.find(offer.client_id)
            if client is None or not any(each.imported_record for each in client.secrets):
                self._secrets.verify_imported(record, offer.secret)
