"""The token endpoint, plain (RFC 6749, 3.2) and in the G2P Connect profile."""

from collections.abc import Collection

from msgspec import structs

from authz_server.audit.events import TokenExchanged, TokenIssued, TokenRefused
from authz_server.authorization_server import AuthorizationServer, ServerRequest
from authz_server.endpoints.errors import ErrorRenderer
from authz_server.endpoints.g2p_connect import G2PConnectProfile
from authz_server.endpoints.protocol import EndpointParts, Exchange, ProtocolEndpoint
from authz_server.endpoints.responses import Answer, private_answer
from authz_server.tokens.authorization import Authorization
from authz_server.tokens.binding import TokenBinder, token_type_of


class TokenEndpoint(ProtocolEndpoint):
    """Issues tokens.

    Args:
        parts: the collaborators that every endpoint needs.
        server: runs the grants.
        binder: makes nonces for DPoP proofs.
        targets: the normalised URIs of the endpoint.
        profile: the G2P Connect profile, or None for the plain endpoint.
    """

    refusal = TokenRefused

    def __init__(
        self,
        parts: EndpointParts,
        server: AuthorizationServer,
        binder: TokenBinder,
        targets: Collection[str],
        profile: G2PConnectProfile | None = None,
    ) -> None:
        super().__init__(parts)
        self._server = server
        self._binder = binder
        self._targets = targets
        self._profile = profile
        self.name = "token" if profile is None else "client/token"

    async def _answer(self, exchange: Exchange) -> Answer:
        if self._profile is not None:
            headers = exchange.request.headers
            exchange.message_id = self._profile.read_message_id(headers)
            self._profile.require_timestamp(headers)
        form = self._parts.forms.read(exchange.request)
        await self._require_fresh()
        request = ServerRequest(
            exchange.sender(form), form.resources, self._targets, form.further_audiences
        )
        try:
            authorization, issued = await self._server.issue_token(request)
        finally:
            if request.client is not None:
                exchange.request.client_id = request.client.id
        event = TokenIssued(
            request_id=exchange.request_id,
            message_id=exchange.message_id,
            source_address=exchange.client_address,
            client_id=authorization.client_id,
            grant_type=authorization.grant_type,
            authentication_method=request.authentication_method,
            scope=authorization.scope,
            audience=authorization.audience,
            jti=issued.jti,
            kid=issued.kid,
            backend_request_id=issued.backend_request_id,
            token_format="jwt" if issued.kid else "reference",
            expires_at=issued.expires_at,
            confirmation=request.confirmation,
        )
        if authorization.claims is not None or authorization.exchanged is not None:
            event = self._add_claims(event, authorization)
        self._parts.notify(event)
        answer: dict[str, object] = {
            "access_token": issued.access_token,
            "token_type": token_type_of(request.confirmation),
            "expires_in": issued.expires_at - issued.issued_at,
            "scope": authorization.scope,
        }
        if authorization.answer is not None:
            answer.update(authorization.answer)
        if self._profile is not None:
            self._profile.render_answer(answer, authorization.g2p_answer)
        return private_answer(answer, exchange.request_id, headers=self._answer_headers(exchange))

    def _add_claims(self, event: TokenIssued, authorization: Authorization) -> TokenIssued:
        """Return the event with the token's details; record the tokens that were exchanged."""
        exchanged, claims = authorization.exchanged, authorization.claims or {}
        if exchanged is not None:
            actor = exchanged.actor
            self._parts.notify(
                TokenExchanged(
                    request_id=event.request_id,
                    message_id=event.message_id,
                    source_address=event.source_address,
                    client_id=event.client_id,
                    jti=event.jti,
                    subject=exchanged.subject.subject,
                    subject_issuer=exchanged.subject.issuer,
                    subject_client_id=exchanged.subject.client_id,
                    subject_jti=exchanged.subject.jti,
                    actor=actor.subject if actor is not None else "",
                    actor_client_id=actor.client_id if actor is not None else "",
                    actor_jti=actor.jti if actor is not None else "",
                    act=claims.get("act"),
                )
            )
        details = claims.get("authorization_details")
        if details is None:
            return event
        return structs.replace(event, authorization_details=details)

    def error_renderer(self) -> ErrorRenderer | None:
        """Return the callable that adds the profile's members to a refusal, if any."""
        return self._profile.render_error if self._profile is not None else None

    def _answer_headers(self, exchange: Exchange) -> dict[str, str] | None:
        nonce = self._binder.make_nonce(exchange.request.headers)
        if not nonce and not exchange.message_id:
            return None
        headers = {"message_id": exchange.message_id} if exchange.message_id else {}
        # RFC 9449, 8.2: a client uses the nonce that it received last.
        return {**headers, "DPoP-Nonce": nonce} if nonce else headers
