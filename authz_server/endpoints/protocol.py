"""What the token, introspection and revocation endpoints share: read, answer or refuse, record."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from wsgiref.types import WSGIEnvironment

from flask import request

from authz_server.changes import ChangeFeed
from authz_server.clients.authentication import ClientAuthenticator
from authz_server.clients.credentials import read_credentials
from authz_server.clients.directory import ClientEntry
from authz_server.clients.throttle import MAXIMUM_ID_CHARACTERS
from authz_server.endpoints.answers import Answer, new_request_id
from authz_server.endpoints.errors import ErrorAnswers, Shape, as_refusal
from authz_server.endpoints.forms import Form, FormReader
from authz_server.endpoints.source import SourceReader
from authz_server.errors import OAuthError
from authz_server.events import Event, IntrospectionRefused, RevocationRefused, TokenRefused
from authz_server.logs import bind_request_id

Refusal = type[TokenRefused | IntrospectionRefused | RevocationRefused]


@dataclass(frozen=True, slots=True)
class EndpointParts:
    """What every protocol endpoint needs.

    Attributes:
        begin: starts, once in each process, what runs beside its requests.
        forms: reads bodies.
        sources: finds senders' addresses.
        feed: keeps the memory fresh.
        authenticator: tells who sends a request.
        errors: renders refusals.
        record: records an event, or raises because it cannot be.
    """

    begin: Callable[[], None]
    forms: FormReader
    sources: SourceReader
    feed: ChangeFeed
    authenticator: ClientAuthenticator
    errors: ErrorAnswers
    record: Callable[[Event], None]


@dataclass(slots=True)
class Exchange:
    """One request under way."""

    environ: dict[str, Any]
    request_id: str
    source_address: str
    message_id: str = ""

    @property
    def authorization_header(self) -> str | None:
        """The ``Authorization`` header, or None."""
        return self.environ.get("HTTP_AUTHORIZATION")


class ProtocolEndpoint(ABC):
    """A view that answers a strictly read form, and records every refusal once."""

    refusal: Refusal

    def __init__(self, parts: EndpointParts) -> None:
        self._parts = parts

    def __call__(self) -> Answer:
        """Answer Flask's current request."""
        return self.answer(request.environ)

    def answer(self, environ: WSGIEnvironment) -> Answer:
        """Answer the WSGI request; whatever goes wrong is an answer too."""
        parts = self._parts
        request_id = new_request_id()
        bind_request_id(request_id)
        exchange = Exchange(environ, request_id, parts.sources.read(environ))
        try:
            parts.begin()
            return self._answer(exchange)
        except Exception as fault:  # noqa: BLE001 - every fault is answered, none gets away
            return self._refuse(exchange, as_refusal(fault))

    @abstractmethod
    def _answer(self, exchange: Exchange) -> Answer:
        """Return the answer to a request that is in order; raise where it is not."""

    def shape(self) -> Shape | None:
        """Return what adds a profile's members to a refusal; None where there is no profile."""
        return None

    def _answer_headers(self, exchange: Exchange) -> dict[str, str] | None:
        del exchange
        return None

    def _refuse(self, exchange: Exchange, error: OAuthError) -> Answer:
        try:
            self._parts.record(
                self.refusal(
                    request_id=exchange.request_id,
                    message_id=exchange.message_id,
                    source_address=exchange.source_address,
                    client_id=self._recorded(error.client_id),
                    error=error.error,
                    reason=error.reason,
                )
            )
        except OAuthError as unrecorded:
            error = unrecorded
        return self._parts.errors.render(
            error,
            exchange.environ,
            exchange.request_id,
            self.shape(),
            self._answer_headers(exchange),
        )

    def _recorded(self, client_id: str) -> str:
        """Return the id for the record; one that nobody has may be a secret in the wrong field.

        It is masked at its length, so that recording it costs what a known one costs.
        """
        known = self._parts.authenticator.knows(client_id)
        return client_id if known else "*" * len(client_id[:MAXIMUM_ID_CHARACTERS])

    def _authenticated(self, exchange: Exchange) -> tuple[ClientEntry, Form]:
        """Return the caller and the form; OAuthError where either is refused."""
        parts = self._parts
        form = parts.forms.read(exchange.environ)
        if len(form.resources) > 1:
            # RFC 8707 lets the parameter repeat at the token endpoint alone.
            raise OAuthError("parameter_repeated")
        parts.feed.require_fresh()
        credentials = read_credentials(form.values, exchange.authorization_header)
        return parts.authenticator.authenticate(credentials, exchange.source_address), form
