"""Dynamic registration of clients (RFC 7591) and its management (RFC 7592)."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from authz_server.audit.events import Event, RegistrationRefused
from authz_server.audit.records import report_changes
from authz_server.clients.authentication.throttle import RequestLimit
from authz_server.clients.registration.initial_tokens import InitialAccessTokens
from authz_server.clients.registration.metadata import read_metadata
from authz_server.clients.registration.service import (
    RegisteredClient,
    RegistrationAccess,
    RegistrationService,
)
from authz_server.clients.registration.software_statements import (
    SoftwareStatement,
    SoftwareStatements,
)
from authz_server.database.orm import Database
from authz_server.endpoints.json_bodies import read_json_object
from authz_server.endpoints.protocol import EndpointParts, Exchange, ProtocolEndpoint
from authz_server.endpoints.request import Request
from authz_server.endpoints.responses import Answer, private_answer
from authz_server.errors import OAuthError
from authz_server.waiting import Batch, BatchedStep, Lane, Step

Changed = TypeVar("Changed")

REGISTER = "/oauth2/register"
#: RFC 7592, 2.2: members of the response that an update must not have.
_RESPONSE_ONLY = (
    "registration_access_token",
    "registration_client_uri",
    "client_secret_expires_at",
    "client_id_issued_at",
)


@dataclass(frozen=True, slots=True)
class RegistrationParts:
    """The collaborators of both endpoints.

    Attributes:
        issuer: the server's issuer.
        database: stores registrations.
        registrations: registers clients and manages registrations.
        initial_tokens: spends initial access tokens.
        statements: verifies software statements.
        limit: counts the requests of each network.
        token_limit: counts the requests with a right token or statement beyond that limit.
        clock: returns the present time, timezone-aware.
    """

    issuer: str
    database: Database
    registrations: RegistrationService
    initial_tokens: InitialAccessTokens
    statements: SoftwareStatements
    limit: RequestLimit
    token_limit: RequestLimit
    clock: Callable[[], datetime]


class _Sent(NamedTuple):
    """A request beyond the limit, with its token."""

    exchange: Exchange
    token: str


class _TokenChecks(Batch[_Sent, bool]):
    """Finds which tokens are right, for all requests that wait at a time on one thread.

    A flood of wrong tokens therefore takes one connection to the database.

    Args:
        database: stores the tokens.
        is_accepted: returns whether the token of a request permits it.
    """

    def __init__(
        self, database: Database, is_accepted: Callable[[Session, Exchange, str], bool]
    ) -> None:
        self._database = database
        self._is_accepted = is_accepted

    async def perform(self, values: Sequence[_Sent]) -> Sequence[bool]:
        """Return whether the token of each request permits it."""
        return await Step(Lane.DATABASE, partial(self._find, values))

    def _find(self, values: Sequence[_Sent]) -> list[bool]:
        with self._database.reading() as session:
            return [self._is_accepted(session, *sent) for sent in values]


class _Endpoint(ProtocolEndpoint):
    """Limits the requests of an address and of a token; makes changes and reports them.

    Args:
        parts: the collaborators that every endpoint needs.
        registration: those of registration.
    """

    refusal = RegistrationRefused

    def __init__(self, parts: EndpointParts, registration: RegistrationParts) -> None:
        super().__init__(parts)
        self._registration = registration
        self._checks = _TokenChecks(registration.database, self._is_accepted)

    async def _answer(self, exchange: Exchange) -> Answer:
        registration = self._registration
        now = registration.clock().timestamp()
        wait = await registration.limit.count(exchange.client_address, now)
        if wait and (subject := await self._find_subject(exchange)):
            # The address may be that of a proxy, from which all clients send.
            digest = sha256(subject.encode()).hexdigest()
            wait = await registration.token_limit.count(digest, now)
        if wait:
            raise OAuthError("registrations_throttled", retry_after_seconds=wait)
        return await self._answer_in_limit(exchange)

    async def _has_token(self, exchange: Exchange) -> bool:
        """Return whether a request has a token that permits it."""
        token = read_bearer(exchange.request)
        return bool(token) and await BatchedStep(self._checks, _Sent(exchange, token))

    @abstractmethod
    def _is_accepted(self, session: Session, exchange: Exchange, token: str) -> bool:
        """Return whether the token of a request permits it."""

    @abstractmethod
    async def _find_subject(self, exchange: Exchange) -> str:
        """Return what a request beyond the limit is counted for; empty: nothing permits it."""

    @abstractmethod
    async def _answer_in_limit(self, exchange: Exchange) -> Answer:
        """Return the response to a request within the limit."""

    def _change(self, exchange: Exchange, act: Callable[[Session], Changed]) -> Changed:
        """Make a change in a transaction of its own, report it, and read it into the caches."""
        with self._registration.database.transaction() as session:
            changed = act(session)
        report_changes(partial(self._report, exchange), session)
        # Other processes read the change at their interval, as this one does if it cannot now.
        with suppress(SQLAlchemyError):
            self._parts.feed.poll()
        return changed

    def _report(self, exchange: Exchange, event: Event) -> None:
        self._parts.notify(
            msgspec.structs.replace(
                event, request_id=exchange.request_id, source_address=exchange.client_address
            )
        )

    def _information(
        self, exchange: Exchange, client: RegisteredClient, token: str, *, status: int = 200
    ) -> Answer:
        """Return the client information response (RFC 7591, 3.2.1; RFC 7592, 3)."""
        exchange.request.client_id = client.client_id
        members: dict[str, Any] = {
            **client.metadata,
            "client_id": client.client_id,
            "client_id_issued_at": int(client.registered_at.timestamp()),
            "registration_access_token": client.token or token,
            "registration_client_uri": (
                f"{self._registration.issuer}{REGISTER}/{client.client_id}"
            ),
        }
        if client.secret:
            expires_at = client.secret_expires_at
            members["client_secret"] = client.secret
            members["client_secret_expires_at"] = int(expires_at.timestamp()) if expires_at else 0
        return private_answer(members, exchange.request_id, status=status)


class RegistrationEndpoint(_Endpoint):
    """Registers a client for an initial access token or a software statement."""

    name = "register"

    async def _answer_in_limit(self, exchange: Exchange) -> Answer:
        document = read_json_object(exchange.request)
        token = read_bearer(exchange.request)
        text = document.get("software_statement")
        if not token and text is None:
            raise OAuthError("registration_token_invalid", "missing")
        statement = None if text is None else await self._registration.statements.verify(text)
        act = partial(self._register, document, token, statement)
        client = await Step(Lane.DATABASE, partial(self._change, exchange, act))
        return self._information(exchange, client, "", status=HTTPStatus.CREATED)

    def _is_accepted(self, session: Session, exchange: Exchange, token: str) -> bool:
        del exchange
        return self._registration.initial_tokens.is_usable(session, token)

    async def _find_subject(self, exchange: Exchange) -> str:
        token = read_bearer(exchange.request)
        if token:
            return token if await self._has_token(exchange) else ""
        try:
            text = read_json_object(exchange.request).get("software_statement")
            statement = await self._registration.statements.verify(text)
        except OAuthError:
            return ""
        return statement.text

    def _register(
        self,
        document: dict[str, Any],
        token: str,
        statement: SoftwareStatement | None,
        session: Session,
    ) -> RegisteredClient:
        registration, grantor = self._registration, None
        if token:
            grantor = registration.initial_tokens.spend(session, token)
            if grantor is None:
                raise OAuthError("registration_token_invalid")
        if statement is not None:
            by_statement = registration.statements.find_grantor(session, statement)
            grantor = by_statement if grantor is None else grantor.joined(by_statement)
            # RFC 7591, 3.1.1: the statement takes precedence.
            document = statement.apply_to(document)
        if grantor is None:
            raise OAuthError("registration_token_invalid")
        metadata = read_metadata(document)
        return registration.registrations.register(session, grantor, metadata, statement)


class ClientConfigurationEndpoint(_Endpoint):
    """Reads, updates and deletes the registration of the client in the address (RFC 7592, 2)."""

    name = "register/client"
    #: The methods of the endpoint.
    METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})

    async def _answer_in_limit(self, exchange: Exchange) -> Answer:
        request = exchange.request
        client_id = _client_in(request)
        token = read_bearer(request)
        if not token:
            raise OAuthError("registration_token_invalid", "missing", client_id=client_id)
        access = RegistrationAccess(client_id, token, exchange.client_address)
        match request.method:
            case "PUT":
                document = read_json_object(request)
                update = partial(self._update, access, document)
                client = await Step(Lane.DATABASE, partial(self._change, exchange, update))
            case "DELETE":
                delete = partial(self._delete, access)
                await Step(Lane.DATABASE, partial(self._change, exchange, delete))
                request.client_id = client_id
                return _no_content(exchange.request_id)
            case _:
                client = await Step(Lane.DATABASE, partial(self._read, access))
        return self._information(exchange, client, token)

    def _is_accepted(self, session: Session, exchange: Exchange, token: str) -> bool:
        access = RegistrationAccess(_client_in(exchange.request), token, exchange.client_address)
        return self._registration.registrations.accepts(session, access)

    async def _find_subject(self, exchange: Exchange) -> str:
        # Each update gives the client another token.
        return _client_in(exchange.request) if await self._has_token(exchange) else ""

    def _read(self, access: RegistrationAccess) -> RegisteredClient:
        registration = self._registration
        with registration.database.reading() as session:
            return registration.registrations.read(session, access)

    def _update(
        self, access: RegistrationAccess, document: dict[str, Any], session: Session
    ) -> RegisteredClient:
        registrations, client_id = self._registration.registrations, access.client_id
        statement = registrations.find_statement(session, access)
        if document.get("client_id") != client_id or document.keys() & set(_RESPONSE_ONLY):
            raise OAuthError(
                "client_metadata_invalid",
                "client_id or members of the response",
                client_id=client_id,
            )
        if document.get("software_statement") not in (None, statement.text):
            raise OAuthError("software_statement_invalid", "not the registered one")
        metadata = read_metadata(statement.apply_to(document))
        secret = document.get("client_secret")
        return registrations.update(session, access, metadata, secret=secret)

    def _delete(self, access: RegistrationAccess, session: Session) -> None:
        self._registration.registrations.delete(session, access)


def _client_in(request: Request) -> str:
    return request.path.rpartition("/")[2]


def read_bearer(request: Request) -> str:
    """Return the token in the ``Authorization`` header (RFC 6750, 2.1); empty: there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _no_content(request_id: str) -> Answer:
    answer = private_answer(None, request_id, status=HTTPStatus.NO_CONTENT)
    del answer.headers["Content-Type"]
    return Answer(answer.status, answer.headers, b"")
