"""Authenticates clients and resource servers: one rule for every endpoint and method."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from authz_server.clients.authentication.method import (
    AuthenticationRequest,
    ClientAuthenticationMethod,
    Reading,
    Verdict,
)
from authz_server.clients.authentication.registry import AuthenticationMethods
from authz_server.clients.authentication.throttle import FailureThrottle, SharedFailures
from authz_server.clients.cache import ClientCache, ClientEntry
from authz_server.clients.client_documents import METHOD as DOCUMENT_METHOD
from authz_server.clients.client_documents import ClientDocuments
from authz_server.errors import OAuthError

#: Verified if no client has the claimed id. No credentials match it.
STAND_IN = ClientEntry(
    id="",
    kind="client",
    enabled=False,
    created_at=0.0,
    starts_at=0.0,
    expires_at=0.0,
    authentication_method="",
    grant_types=frozenset(),
    allowed_scopes=frozenset(),
    default_scopes=(),
    allowed_resource_servers=frozenset(),
    permissions=frozenset(),
    token_lifetime_seconds=None,
    g2p_answer="document",
    secrets=(),
    resource_server=None,
)


#: The last use of a credential: seconds since 1970 UTC, and the IP address of the sender.
Use = tuple[float, str]


class AuthenticatedClient(NamedTuple):
    """A client that has been authenticated.

    Attributes:
        client: the client or resource server.
        method: the method that it used, by its name in audit records.
    """

    client: ClientEntry
    method: str


class _Attempt(NamedTuple):
    """One reading of the credentials and its outcome so far.

    Attributes:
        client: the client of the id, or the stand-in.
        cause: the cause of the refusal; empty if the reading authenticates the client.
    """

    reading: Reading
    client: ClientEntry
    verdict: Verdict
    cause: str

    @property
    def exactness(self) -> int:
        """The rank of the cause; of two readings of one header, the better one has the higher."""
        if self.client is STAND_IN:
            return 0
        return 2 if self.verdict.credential else 1


class ClientAuthenticator:
    """Authenticates the sender of a request; all refusals have the same form and cost.

    The order is the same for every method: recognise the credentials, look the client up, verify
    the proof, then judge the client's state and its registration. An unknown client is verified
    as a stand-in, so that its refusal costs as much as any other.
    ``docs/decisions/0018-imported-secrets.md`` lists the exceptions to the equal cost.

    Args:
        directory: the clients in memory.
        methods: the methods in use.
        throttle: slows down failures.
        clock: returns the present time.
        shared_failures: counts failures over all processes; None: each process for itself.
        documents: fetches the metadata of clients that publish it; None: there are none.
    """

    def __init__(  # noqa: PLR0913 - its parts
        self,
        directory: ClientCache,
        methods: AuthenticationMethods,
        throttle: FailureThrottle,
        clock: Callable[[], datetime],
        *,
        shared_failures: SharedFailures | None = None,
        documents: ClientDocuments | None = None,
    ) -> None:
        self._methods = methods
        self._permitted = methods.permitted
        self._directory = directory
        self._throttle = throttle
        self._clock = clock
        self._shared_failures = shared_failures
        self._documents = documents
        self._used: dict[str, Use] = {}

    async def authenticate(self, request: AuthenticationRequest) -> AuthenticatedClient:
        """Return the client that the credentials of a request prove.

        The right credentials are accepted after any number of failures. A failure above the limit
        is refused with the time to wait.

        Raises:
            OAuthError: ``client_authentication_failed``, ``several_authentication_methods``,
                ``throttled``, or the error of a method that cannot verify at present.
        """
        now = self._clock().timestamp()
        recognised = self._methods.recognise(request)
        if recognised is None or not recognised[1].readings:
            claimed = request.form.get("client_id", "")
            if request.certificate is not None and claimed:
                # As for an unknown client, whose certificate is wrong.
                raise await self._count("credentials_missing", claimed, request.address, now)
            # A request without credentials does not guess a secret, so it is not counted.
            raise _refusal("credentials_missing", claimed)
        method, (name, readings) = recognised
        if self._documents is not None and name == DOCUMENT_METHOD:
            await self._documents.resolve(readings[0].client_id, request.address, now)
        attempts: list[_Attempt] = []
        for reading in readings:
            client = self._directory.find(reading.client_id) or STAND_IN
            verdict = method.verify(reading, client, request.address, now)
            cause = self._find_cause(client, verdict, name, request.address, now)
            if not cause and verdict.conclude is not None:
                verdict = await verdict.conclude()
                cause = verdict.cause
            if not cause:
                return self._accept(client, verdict, name, request.address, now)
            attempts.append(_Attempt(reading, client, verdict, cause))
        return await self._verify_further(method, name, attempts, request.address, now)

    def knows(self, client_id: str) -> bool:
        """Return whether there is a client or resource server with this id."""
        return self._directory.find(client_id) is not None

    def take_last_used(self) -> dict[str, Use]:
        """Return the last use of each credential, by its id, and forget these uses."""
        used, self._used = self._used, {}
        return used

    async def _verify_further(
        self,
        method: ClientAuthenticationMethod,
        name: str,
        attempts: list[_Attempt],
        address: str,
        now: float,
    ) -> AuthenticatedClient:
        """Await the further checks of refused readings, in order, up to the first success."""
        claimed = attempts[0].reading.client_id
        for index, attempt in enumerate(attempts):
            if attempt.verdict.further is None:
                continue
            try:
                verdict = await attempt.verdict.further()
            except OAuthError as busy:
                wait = self._throttle.seconds_to_wait(claimed, address, now)
                if wait:
                    raise _throttled(claimed, busy.reason, wait) from busy
                raise
            client = verdict.client or self._directory.find(attempt.reading.client_id) or STAND_IN
            cause = self._find_cause(client, verdict, name, address, now)
            if not cause and verdict.conclude is not None:
                verdict = await verdict.conclude()
                cause = verdict.cause
            if not cause:
                tried = [each.reading for each in attempts[: index + 1]]
                method.note_accepted(tried, verdict.credential)
                return self._accept(client, verdict, name, address, now)
            attempts[index] = _Attempt(attempt.reading, client, verdict, cause)
        raise await self._count_refusal(claimed, attempts, address, now)

    def _accept(
        self, client: ClientEntry, verdict: Verdict, name: str, address: str, now: float
    ) -> AuthenticatedClient:
        self._used[verdict.credential] = now, address
        return AuthenticatedClient(client, name)

    def _find_cause(
        self, client: ClientEntry, verdict: Verdict, name: str, address: str, now: float
    ) -> str:
        """Return the cause of a refusal; empty if the proof authenticates the client."""
        # The state is read before the verdict, so that a wrong proof costs as much as a right one.
        state = client.find_refusal(now, address)
        if client is STAND_IN:
            return "client_unknown"
        if not verdict.credential:
            return verdict.cause or "credentials_wrong"
        if not state:
            state = verdict.cause
        if not state and name not in self._permitted.get(client.authentication_method, ()):
            state = "method_not_registered"
        return state

    async def _count_refusal(
        self, claimed: str, attempts: Sequence[_Attempt], address: str, now: float
    ) -> OAuthError:
        best = max(attempts, key=lambda attempt: attempt.exactness)
        cause, client_id = best.cause, best.reading.client_id
        if cause == "method_not_registered":
            # The right secret by a wrong method is not a guess.
            return _refusal(cause, client_id)
        return await self._count(cause, client_id, address, now, claimed)

    async def _count(
        self, cause: str, client_id: str, address: str, now: float, claimed: str = ""
    ) -> OAuthError:
        """Return the refusal of a guess, which counts for the id ``claimed``."""
        counted = claimed or client_id
        wait = self._throttle.count_failure(counted, address, now)
        if not wait and self._shared_failures is not None:
            wait = await self._shared_failures.count_failure(counted, address, now)
        return _throttled(client_id, cause, wait) if wait else _refusal(cause, client_id)


def _refusal(cause: str, client_id: str) -> OAuthError:
    return OAuthError("client_authentication_failed", cause=cause, client_id=client_id)


def _throttled(client_id: str, cause: str, seconds: int) -> OAuthError:
    return OAuthError("throttled", cause, retry_after_seconds=seconds, client_id=client_id)
