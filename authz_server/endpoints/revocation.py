"""The revocation endpoint (RFC 7009)."""

from datetime import UTC, datetime
from functools import partial

from authz_server.audit.events import RevocationRefused, TokenRevoked, TokenRevoking
from authz_server.database.orm import Database
from authz_server.endpoints.protocol import EndpointParts, Exchange, ProtocolEndpoint
from authz_server.endpoints.responses import Answer, private_answer
from authz_server.errors import OAuthError
from authz_server.tokens.revocations import RevocationService
from authz_server.tokens.verification import TokenVerifier, VerifiedAccessToken
from authz_server.waiting import Lane, Step


class RevocationEndpoint(ProtocolEndpoint):
    """Revokes a client's own tokens; responds 200 once the revocation is durable.

    An unknown or expired token and the token of another client get the same 200. A wrong
    ``token_type_hint`` has no effect (RFC 7009, 2.1 and 2.2).

    Args:
        parts: the collaborators that every endpoint needs.
        verifier: verifies the presented token.
        revocations: records revocations.
        database: stores them.
    """

    name = "revoke"
    refusal = RevocationRefused

    def __init__(
        self,
        parts: EndpointParts,
        verifier: TokenVerifier,
        revocations: RevocationService,
        database: Database,
    ) -> None:
        super().__init__(parts)
        self._verifier = verifier
        self._revocations = revocations
        self._database = database

    async def _answer(self, exchange: Exchange) -> Answer:
        caller, form = await self._authenticated(exchange)
        token = form.values.get("token")
        if token is None:
            raise OAuthError("parameter_missing", "token", client_id=caller.id)
        verified = await self._verifier.find_verified(token)
        exchange.outcome = "nothing"
        if verified is not None and verified.claims.client_id == caller.id:
            await Step(Lane.DATABASE, partial(self._revoke, exchange, verified))
        # RFC 7009, 2.2: clients ignore the body; it is JSON to match its content type.
        return private_answer({}, exchange.request_id)

    def _revoke(self, exchange: Exchange, verified: VerifiedAccessToken) -> None:
        claims = verified.claims

        def record(event: type[TokenRevoking | TokenRevoked]) -> None:
            self._parts.notify(
                event(
                    request_id=exchange.request_id,
                    source_address=exchange.client_address,
                    actor=claims.client_id,
                    client_id=claims.client_id,
                    jti=claims.jti,
                )
            )

        with self._database.transaction() as session:
            added = self._revocations.revoke_token(
                session,
                jti=claims.jti,
                client_id=claims.client_id,
                expires_at=datetime.fromtimestamp(claims.exp, UTC),
                actor=claims.client_id,
            )
            if added:
                # Before the commit, so that a revocation is made only if it is recorded.
                record(TokenRevoking)
        if added:
            # After the commit, so that a failed commit leaves no record of a success.
            exchange.outcome = "revoked"
            record(TokenRevoked)
