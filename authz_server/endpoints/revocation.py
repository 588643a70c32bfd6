"""The revocation endpoint (RFC 7009)."""

from datetime import UTC, datetime
from functools import partial

from authz_server.audit.events import RevocationRefused, TokenRevoked, TokenRevoking
from authz_server.database.clock import ClockGuard, has_certainly_passed
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
    ``token_type_hint`` has no effect (RFC 7009, 2.1 and 2.2). A token that has expired by the clock
    of this machine alone is revoked: the clock may have leapt.

    Args:
        parts: the collaborators that every endpoint needs.
        verifier: verifies the presented token.
        revocations: records revocations.
        database: stores them.
        clock_guard: returns the time that has certainly passed; None: the clock is right.
    """

    name = "revoke"
    refusal = RevocationRefused

    def __init__(
        self,
        parts: EndpointParts,
        verifier: TokenVerifier,
        revocations: RevocationService,
        database: Database,
        clock_guard: ClockGuard | None,
    ) -> None:
        super().__init__(parts)
        self._verifier = verifier
        self._revocations = revocations
        self._database = database
        self._clock_guard = clock_guard

    async def _answer(self, exchange: Exchange) -> Answer:
        caller, form = await self._authenticated(exchange)
        token = form.values.get("token")
        if token is None:
            raise OAuthError("parameter_missing", "token", client_id=caller.id)
        found = await self._verifier.find_revocable(token)
        exchange.outcome = "nothing"
        if found is not None and found[0].claims.client_id == caller.id:
            verified, is_in_force = found
            if is_in_force or self._clock_guard is not None:
                act = partial(self._revoke, exchange, verified, is_in_force=is_in_force)
                await Step(Lane.DATABASE, act)
        # RFC 7009, 2.2: clients ignore the body; it is JSON to match its content type.
        return private_answer({}, exchange.request_id)

    def _revoke(
        self, exchange: Exchange, verified: VerifiedAccessToken, *, is_in_force: bool
    ) -> None:
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

        guard = self._clock_guard
        if not is_in_force and has_certainly_passed(guard, self._database, claims.exp):
            return
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
