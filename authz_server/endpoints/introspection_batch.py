"""Introspection of several tokens by one request, an extension of RFC 7662."""

from typing import Any

from msgspec.structs import replace

from authz_server.audit.events import IntrospectionRefused
from authz_server.endpoints.forms import PRESENTED, Form, decode_presented
from authz_server.endpoints.json_bodies import JSON_TYPE, read_form, read_json_object
from authz_server.endpoints.protocol import EndpointParts, Exchange, ProtocolEndpoint
from authz_server.endpoints.request import Request
from authz_server.endpoints.responses import Answer, private_answer
from authz_server.errors import OAuthError
from authz_server.tokens.introspection import IntrospectionService

BATCH = "/oauth2/introspect/batch"
MAXIMUM_TOKENS = 100
#: The member of a request in JSON.
_TOKENS = "tokens"
_BODY_BYTES = 262_144
_INACTIVE: dict[str, Any] = {"active": False}


class IntrospectionBatchEndpoint(ProtocolEndpoint):
    """Describes up to :data:`MAXIMUM_TOKENS` tokens, each as if it were alone.

    Args:
        parts: the collaborators that every endpoint needs.
        service: decides which members a caller may see.
    """

    name = "introspect/batch"
    refusal = IntrospectionRefused
    maximum_body_bytes = _BODY_BYTES

    def __init__(self, parts: EndpointParts, service: IntrospectionService) -> None:
        super().__init__(parts)
        self._service = service

    async def _answer(self, exchange: Exchange) -> Answer:
        form, tokens = self._read(exchange.request)
        caller = await self._authenticate(exchange, form)
        if not tokens:
            raise OAuthError("parameter_missing", "token", client_id=caller.id)
        if len(tokens) > MAXIMUM_TOKENS:
            raise OAuthError("parameters_too_many", f"{len(tokens)} tokens", client_id=caller.id)
        found = await self._service.find_each_active(caller, tokens)
        return private_answer({"responses": [_render(each) for each in found]}, exchange.request_id)

    def _read(self, request: Request) -> tuple[Form, list[str]]:
        """Return the credentials and the tokens of a request, in a form or in JSON."""
        media_type = request.headers.get("content-type", "").partition(";")[0]
        if media_type.strip().lower() == JSON_TYPE:
            return _read_json(request)
        tokens: list[str] = []
        others: list[bytes] = []
        for pair in request.body.split(b"&"):
            name, _, value = pair.partition(b"=")
            if name == PRESENTED.encode():
                tokens.append(decode_presented(value.decode("latin-1")))
            else:
                others.append(pair)
        form = self._parts.forms.read(replace(request, body=b"&".join(others)))
        if PRESENTED in form.values:
            # A name with percent encoding would change the order.
            raise OAuthError("parameter_malformed", "the name token is encoded")
        return form, tokens


def _read_json(request: Request) -> tuple[Form, list[str]]:
    document = read_json_object(request, "parameter_malformed")
    tokens = document.pop(_TOKENS, [])
    if not isinstance(tokens, list) or not all(isinstance(each, str) for each in tokens):
        raise OAuthError("parameter_malformed", f"{_TOKENS} is not a list of strings")
    return read_form(document), tokens


def _render(found: dict[str, Any] | OAuthError | None) -> dict[str, Any]:
    """Return the response for one token, or the error that it would have alone."""
    if isinstance(found, OAuthError):
        return {"error": found.error, "error_description": found.description}
    return _INACTIVE if found is None else found
