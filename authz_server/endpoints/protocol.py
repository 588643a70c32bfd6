"""Base class of the token, introspection and revocation endpoints."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter, time

from msgspec import Struct

from authz_server.audit.events import (
    EventPollRefused,
    IntrospectionRefused,
    RegistrationRefused,
    RevocationRefused,
    TokenRefused,
)
from authz_server.audit.notifier import Notify
from authz_server.clients.authentication.authenticator import ClientAuthenticator
from authz_server.clients.authentication.method import AuthenticationRequest
from authz_server.clients.authentication.throttle import MAXIMUM_ID_CHARACTERS
from authz_server.clients.cache import ClientEntry
from authz_server.clients.certificates import ClientCertificate
from authz_server.database.change_feed import ChangeFeed
from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.endpoints.client_certificates import CertificateReader
from authz_server.endpoints.errors import ErrorRenderer, ErrorResponses, as_refusal
from authz_server.endpoints.forms import Form, FormReader
from authz_server.endpoints.request import Request
from authz_server.endpoints.responses import Answer, new_request_id
from authz_server.errors import OAuthError
from authz_server.hookspecs import AnsweredRequest
from authz_server.logs import bind_request_id, redact
from authz_server.metrics.events import RequestAnswered
from authz_server.waiting import Lane, Step, TimedSteps, Wait

Refusal = type[
    TokenRefused | IntrospectionRefused | RevocationRefused | RegistrationRefused | EventPollRefused
]
MAXIMUM_DETAIL_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class EndpointParts:
    """The collaborators that every protocol endpoint needs.

    Attributes:
        begin: starts the background jobs, once in each process.
        forms: parses bodies.
        addresses: finds the addresses of clients.
        feed: keeps the caches fresh.
        authenticator: authenticates clients.
        errors: renders refusals.
        notify: passes an event on; raises if it cannot be recorded.
        certificates: finds the TLS certificates of clients; None: they are off.
        follow: receives each answered request; None: no plugin does.
    """

    begin: Callable[[], None]
    forms: FormReader
    addresses: ClientAddressReader
    feed: ChangeFeed
    authenticator: ClientAuthenticator
    errors: ErrorResponses
    notify: Notify
    certificates: CertificateReader | None = None
    follow: Callable[[AnsweredRequest], None] | None = None


class Exchange(Struct):
    """One request in progress."""

    request: Request
    request_id: str
    client_address: str = ""
    certificate: ClientCertificate | None = None
    message_id: str = ""
    outcome: str = "ok"

    def sender(self, form: Form) -> AuthenticationRequest:
        """Return the parts of the request that authenticate its sender."""
        return AuthenticationRequest(
            form.values, self.request.headers, self.client_address, self.certificate
        )


class ProtocolEndpoint(ABC):
    """Answers a strictly parsed form, and records every refusal once.

    Attributes:
        name: the endpoint's label in metrics.
        refusal: the event that records a refusal.
        maximum_body_bytes: the largest body, where it exceeds ``server.maximum_body_bytes``.
    """

    name: str
    refusal: Refusal
    maximum_body_bytes: int = 0

    def __init__(self, parts: EndpointParts) -> None:
        self._parts = parts

    async def respond(self, request: Request) -> Answer:
        """Return the response to a request; every exception becomes a response."""
        parts = self._parts
        request_id = new_request_id()
        bind_request_id(request_id)
        # The peer is recorded where the forwarded address cannot be read.
        exchange = Exchange(request, request_id, request.peer)
        waits: list[Wait] = []
        began = perf_counter()
        try:
            parts.begin()
            exchange.client_address = parts.addresses.read(request)
            if parts.certificates is not None:
                exchange.certificate = parts.certificates.read(request)
            if request.fault is not None:
                raise request.fault  # noqa: TRY301 - refused like all others
            answering = self._answer(exchange)
            # A wait is timed only for a plugin that receives it.
            answer = await (
                answering if parts.follow is None else TimedSteps(answering, began, waits)
            )
        except Exception as fault:  # noqa: BLE001 - every fault is answered
            answer = self._refuse(exchange, as_refusal(fault))
        seconds = perf_counter() - began
        parts.notify(RequestAnswered(self.name, exchange.outcome, seconds))
        if parts.follow is not None:
            parts.follow(self._summary(exchange, answer.status, seconds, waits))
        return answer

    def _summary(
        self, exchange: Exchange, status: int, seconds: float, waits: Sequence[Wait]
    ) -> AnsweredRequest:
        """Return what plugins receive of an answered request."""
        request = exchange.request
        return AnsweredRequest(
            endpoint=self.name,
            path=request.path,
            status=status,
            outcome=exchange.outcome,
            began_at=time() - seconds,
            seconds=seconds,
            request_id=exchange.request_id,
            client_id=request.client_id,
            source_address=exchange.client_address,
            traceparent=request.headers.get("traceparent", ""),
            tracestate=request.headers.get("tracestate", ""),
            waits=tuple(waits),
        )

    @abstractmethod
    async def _answer(self, exchange: Exchange) -> Answer:
        """Return the response to a valid request; raise OAuthError for any other."""

    def error_renderer(self) -> ErrorRenderer | None:
        """Return the callable that adds a profile's members to a refusal, if any."""
        return None

    def _answer_headers(self, exchange: Exchange) -> dict[str, str] | None:
        del exchange
        return None

    def _refuse(self, exchange: Exchange, error: OAuthError) -> Answer:
        try:
            self._parts.notify(
                self.refusal(
                    request_id=exchange.request_id,
                    message_id=exchange.message_id,
                    source_address=exchange.client_address,
                    client_id=self._recorded(error.client_id or exchange.request.client_id),
                    error=error.error,
                    reason=error.cause,
                    detail=redact(error.detail)[:MAXIMUM_DETAIL_CHARACTERS],
                )
            )
        except OAuthError as unrecorded:
            error = unrecorded
        exchange.outcome = error.error
        return self._parts.errors.render(
            error,
            exchange.request,
            exchange.request_id,
            self.error_renderer(),
            self._answer_headers(exchange),
        )

    def _recorded(self, client_id: str) -> str:
        """Return the client id to record; an unknown one may be a secret in the wrong field.

        An unknown id is masked at its length, so that recording it costs as much as a known one.
        """
        known = self._parts.authenticator.knows(client_id)
        return client_id if known else "*" * len(client_id[:MAXIMUM_ID_CHARACTERS])

    async def _require_fresh(self) -> None:
        """Refresh the caches if they are too old; raise OAuthError if that fails."""
        feed = self._parts.feed
        if not feed.is_fresh():
            await Step(Lane.DATABASE, feed.require_fresh)

    async def _authenticated(self, exchange: Exchange) -> tuple[ClientEntry, Form]:
        """Return the caller and the form; raise OAuthError if either is refused."""
        form = self._parts.forms.read(exchange.request)
        return await self._authenticate(exchange, form), form

    async def _authenticate(self, exchange: Exchange, form: Form) -> ClientEntry:
        """Return the caller; raise OAuthError if it is refused."""
        if len(form.resources) > 1 or form.further_audiences:
            # RFC 8707 and RFC 8693 let the parameters repeat at the token endpoint alone.
            raise OAuthError("parameter_repeated")
        await self._require_fresh()
        caller, _ = await self._parts.authenticator.authenticate(exchange.sender(form))
        exchange.request.client_id = caller.id
        return caller
