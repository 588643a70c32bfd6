"""Token introspection: which members of a token a caller may see (RFC 7662)."""

import os
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from authz_server.clients.cache import ClientCache, ClientEntry
from authz_server.hookspecs import RESERVED_CLAIMS
from authz_server.plugin_manager import PluginManager
from authz_server.scopes.catalogue import ScopeCatalogue
from authz_server.tokens.binding import token_type_of
from authz_server.tokens.claims import AccessTokenClaims
from authz_server.tokens.revocations import RevocationState
from authz_server.tokens.tainted_keys import TaintedKeyWatch
from authz_server.tokens.verification import TokenVerifier, VerifiedAccessToken
from authz_server.waiting import Lane, Step

INTROSPECT_ANY = "introspect:any"

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class IntrospectionService:
    """Describes active tokens to their callers.

    Args:
        verifier: verifies the presented token.
        revocations: checks revocation.
        directory: clients and resource servers.
        catalogue: scopes and their owners.
        plugins: may add members.
        tainted: reports tokens signed by a tainted key.
        clock: returns the present time.
        clock_skew_seconds: the largest difference between the clocks of nodes.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        verifier: TokenVerifier,
        revocations: RevocationState,
        directory: ClientCache,
        catalogue: ScopeCatalogue,
        plugins: PluginManager,
        tainted: TaintedKeyWatch,
        clock: Callable[[], datetime],
        clock_skew_seconds: int,
    ) -> None:
        self._verifier = verifier
        self._revocations = revocations
        self._directory = directory
        self._catalogue = catalogue
        self._plugins = plugins
        self._tainted = tainted
        self._clock = clock
        self._clock_skew_microseconds = clock_skew_seconds * 1_000_000

    async def find_active(self, caller: ClientEntry, token: str) -> dict[str, Any] | None:
        """Return the members of an active response, or None.

        Every None costs the same, so that timing reveals no reason.

        Args:
            caller: the authenticated caller.
            token: as presented.

        Raises:
            OAuthError: a plugin failed.
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        verified = await self._verifier.find_verified(token)
        if verified is None:
            await self._revocations.is_revoked(os.urandom(16).hex(), "", None)
            return None
        answer = await self._find_answer(caller, verified)
        if answer is None and verified.remembered:
            # A cached verification would make this refusal faster than others.
            self._verifier.spend_one_verification()
        return answer

    async def _find_answer(
        self, caller: ClientEntry, verified: VerifiedAccessToken
    ) -> dict[str, Any] | None:
        claims = verified.claims
        if await self._revocations.is_revoked(claims.jti, verified.kid, claims):
            return None
        scopes = self._visible_scopes(caller, claims)
        if not scopes:
            return None
        self._tainted.check(verified.kid, claims)
        return await self._describe(verified, scopes)

    def _visible_scopes(self, caller: ClientEntry, claims: AccessTokenClaims) -> list[str]:
        """Return the spellings of the scopes that the caller may see and the client still has.

        A scope that was withdrawn from the client is removed from its tokens.
        """
        client = self._directory.find(claims.client_id)
        now = self._clock().timestamp() + self._verifier.clock_correction_seconds
        if client is None or not client.is_usable(now):
            return []
        # A new client may have the id of a deleted one; the old client's tokens stay invalid.
        latest = claims.issued_at_microseconds + self._clock_skew_microseconds
        if latest < client.created_at * 1_000_000:
            return []
        own = caller.resource_server
        sees_all = caller.id == client.id or INTROSPECT_ANY in caller.permissions
        if not sees_all and (own is None or own.identifier not in claims.audience):
            return []
        visible = []
        for spelling in claims.scope.split(" "):
            entry = self._catalogue.find(spelling)
            if entry is None or entry.name not in client.allowed_scopes:
                continue
            if sees_all or entry.resource_server_id == caller.id:
                visible.append(spelling)
        return visible

    async def _describe(self, verified: VerifiedAccessToken, scopes: list[str]) -> dict[str, Any]:
        claims = verified.claims
        answer: dict[str, Any] = {
            "active": True,
            "scope": " ".join(scopes),
            "client_id": claims.client_id,
            "sub": claims.sub,
            "aud": claims.aud,
            "iss": claims.iss,
            "exp": claims.exp,
            "iat": claims.iat,
            "jti": claims.jti,
            "token_type": token_type_of(claims.cnf),
        }
        if claims.cnf is not None:
            answer["cnf"] = claims.cnf
        plugins = self._plugins
        if plugins.describes:
            known = self._further(verified) | answer
            answer.update(await Step(Lane.PLUGINS, partial(plugins.introspection_claims, known)))
        return answer

    def _further(self, verified: VerifiedAccessToken) -> dict[str, Any]:
        """Return the claims that plugins added to the token."""
        payload = _decode_object(verified.payload)
        return {name: value for name, value in payload.items() if name not in RESERVED_CLAIMS}
