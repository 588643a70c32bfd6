"""The introspection endpoint (RFC 7662), with signed responses (RFC 9701)."""

from functools import partial
from typing import Any

from authz_server.audit.events import IntrospectionRefused, SignatureMade
from authz_server.clients.cache import ClientEntry
from authz_server.clients.encryption_keys import EncryptionKeys
from authz_server.clients.fetching import FetchError
from authz_server.endpoints.preferences import read_qualities
from authz_server.endpoints.protocol import EndpointParts, Exchange, ProtocolEndpoint
from authz_server.endpoints.responses import Answer, private_answer, private_bytes
from authz_server.errors import OAuthError
from authz_server.tokens.introspection import IntrospectionService
from authz_server.tokens.introspection_jwt import IntrospectionSigner
from authz_server.waiting import Lane, Step
from keys.errors import KeysError

_INACTIVE: dict[str, Any] = {"active": False}
JWT_TYPE = "application/token-introspection+jwt"
#: The ranges that hold JSON, the most specific first (RFC 9110, 12.5.1).
_JSON_RANGES = ("application/json", "application/*", "*/*")


class IntrospectionEndpoint(ProtocolEndpoint):
    """Describes tokens to resource servers and clients.

    Args:
        parts: the collaborators that every endpoint needs.
        service: decides which members a caller may see.
        signer: signs responses as JWTs, or None if signing is disabled.
        encryption: finds the keys of callers that registered for encrypted responses.
    """

    name = "introspect"
    refusal = IntrospectionRefused

    def __init__(
        self,
        parts: EndpointParts,
        service: IntrospectionService,
        signer: IntrospectionSigner | None,
        encryption: EncryptionKeys,
    ) -> None:
        super().__init__(parts)
        self._service = service
        self._signer = signer
        self._encryption = encryption

    async def _answer(self, exchange: Exchange) -> Answer:
        caller, form = await self._authenticated(exchange)
        token = form.values.get("token")
        if token is None:
            raise OAuthError("parameter_missing", "token", client_id=caller.id)
        answer = await self._service.find_active(caller, token) or _INACTIVE
        exchange.outcome = "inactive" if answer is _INACTIVE else "active"
        if self._signer is not None and _wants_jwt(exchange.request.headers.get("accept")):
            return await self._signed(self._signer, exchange, caller, answer)
        return private_answer(answer, exchange.request_id)

    async def _signed(
        self,
        signer: IntrospectionSigner,
        exchange: Exchange,
        caller: ClientEntry,
        answer: dict[str, Any],
    ) -> Answer:
        server = caller.resource_server
        by_identifier = server is not None and server.introspection_audience == "identifier"
        audience = server.identifier if server is not None and by_identifier else caller.id
        ring = server.signing_ring if server is not None else None
        signed = await signer.sign(answer, audience, ring)
        if signed.request_id:
            self._parts.notify(
                SignatureMade(
                    request_id=exchange.request_id,
                    source_address=exchange.client_address,
                    client_id=caller.id,
                    purpose="introspection",
                    kid=signed.kid,
                    backend_request_id=signed.request_id,
                )
            )
        token = signed.token
        try:
            encryption = await self._encryption.find(caller)
            if encryption is not None:
                token = await Step(Lane.SIGNING, partial(encryption.encrypt, token))
        except (FetchError, KeysError) as error:
            raise OAuthError(
                "temporarily_unavailable", f"encryption: {error}", client_id=caller.id
            ) from error
        return private_bytes(token.encode(), JWT_TYPE, exchange.request_id)


def _wants_jwt(accept: str | None) -> bool:
    """Return whether ``accept`` names the signed form and prefers it."""
    if accept is None or JWT_TYPE not in accept.lower():
        return False
    qualities = read_qualities(accept)
    signed = qualities.get(JWT_TYPE, 0.0)
    plain = (qualities[each] for each in _JSON_RANGES if each in qualities)
    return signed > 0 and signed >= next(plain, 0.0)
