"""Explanations: the outcome that a token request would have, and the state of a token."""

import ipaddress
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import select

from authz_server.admin.calls import Call, Reply
from authz_server.admin.resources.clients import Names, require_own_row
from authz_server.clients.identifiers import normalised
from authz_server.clients.models import Client, ResourceServer
from authz_server.errors import NotFoundError
from authz_server.operations.explain import explain_request
from authz_server.operations.explain_token import TokenExplanation, explain_token

_Id = Annotated[str, Meta(min_length=1, max_length=300)]


class RequestQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token request by ``client_credentials`` to explain.

    Attributes:
        client_id: the client.
        scope: the parameter ``scope``; null: absent.
        resources: the parameters ``resource``.
        address: the IP address of the sender; null: any.
        method: the client authentication method; null: any.
    """

    client_id: _Id
    scope: Annotated[str, Meta(max_length=8_192)] | None = None
    resources: Names = ()
    address: str | None = None
    method: str | None = None

    def __post_init__(self) -> None:
        if self.address is not None:
            ipaddress.ip_address(self.address)


class TokenQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token to explain; it is neither stored nor recorded.

    Attributes:
        token: the token.
        caller: the resource server or client that introspects it.
    """

    token: Annotated[str, Meta(min_length=1, max_length=16_384)]
    caller: _Id


def of_request(call: Call) -> Reply:
    """Explain the outcome of a token request; nothing is issued or counted."""
    body: RequestQuestion = call.body
    _require_seen(call, body)
    found = explain_request(
        call.services,
        body.client_id,
        scope=body.scope,
        resources=body.resources,
        address=body.address,
        method=body.method,
    )
    return Reply(found)


def of_token(call: Call) -> Reply:
    """Explain the state of a token for a caller of introspection."""
    body: TokenQuestion = call.body
    found = explain_token(call.services, body.token, body.caller)
    if call.limits and (
        found.claims is None or call.services.directory.find(found.claims.client_id) is None
    ):
        # A token of others and one of another server are alike.
        found = TokenExplanation(
            active=False,
            caller=found.caller,
            cause="signature",
            reason="It is not a token of a client within your limits.",
        )
    return Reply(found)


def _require_seen(call: Call, question: RequestQuestion) -> None:
    """Require that a caller with limits sees what the question names.

    Raises:
        NotFoundError: it names an unknown scope or resource server.
        OutsideLimitsError: the caller sees a part of the client alone.
    """
    if not call.limits:
        return
    with call.services.database.reading() as session:
        row = session.get(Client, question.client_id)
        if row is not None:
            require_own_row(call, row)
        for spelling in (question.scope or "").split():
            call.services.scopes.get_scope(session, spelling)
        known = {normalised(each) for each in session.scalars(select(ResourceServer.identifier))}
    for identifier in question.resources:
        if normalised(identifier) not in known:
            raise NotFoundError(f"There is no resource server {identifier!r}.")
