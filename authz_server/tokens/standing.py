"""Checks that a verified token still stands: not revoked, its client usable, its scopes granted."""

from collections.abc import Callable, Collection, Iterable

import msgspec

from authz_server.clients.cache import ClientCache, ClientEntry
from authz_server.scopes.catalogue import ScopeCatalogue, ScopeEntry
from authz_server.tokens.authorization_details import DetailRules
from authz_server.tokens.claims import AccessTokenClaims, Origin
from authz_server.tokens.revocations import RevocationState
from authz_server.tokens.stops import StopState

GrantedScope = tuple[str, ScopeEntry]


class TokenStanding:
    """Checks verified tokens against the present state of revocations, clients and scopes.

    A token of a token exchange stands as long as every token that it was exchanged from: a
    revocation of one of these, of its client or of its key ends it.

    Args:
        revocations: checks revocation.
        directory: clients.
        catalogue: scopes.
        details: checks authorization details.
        stops: the stopped clients and scopes.
        now: returns the present time by the database's clock, in seconds since 1970.
        clock_skew_seconds: the largest difference between the clocks of nodes.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        revocations: RevocationState,
        directory: ClientCache,
        catalogue: ScopeCatalogue,
        details: DetailRules,
        stops: StopState,
        now: Callable[[], float],
        clock_skew_seconds: int,
    ) -> None:
        self._revocations = revocations
        self._directory = directory
        self._catalogue = catalogue
        self._details = details
        self._stops = stops
        self._now = now
        self._clock_skew_microseconds = clock_skew_seconds * 1_000_000

    async def is_origin_revoked(self, claims: AccessTokenClaims) -> bool:
        """Return whether a token that this one was exchanged from is revoked.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        for origin in claims.exchanged_from:
            if await self._revocations.is_revoked(origin.jti, origin.kid, _at(claims, origin)):
                return True
        return False

    def is_revoked_among(
        self, revoked: Collection[str], claims: AccessTokenClaims, kid: str
    ) -> bool:
        """Return whether a token, or one that it was exchanged from, is revoked or cut off.

        Args:
            revoked: the ids of revoked tokens, these tokens' among them.
            claims: its claims.
            kid: the key that signed it; empty for a reference token.
        """
        itself = Origin(jti=claims.jti, client_id=claims.client_id, kid=kid, iat=claims.iat)
        return any(
            each.jti in revoked or self._revocations.is_cut_off(_at(claims, each), each.kid)
            for each in (itself, *claims.exchanged_from)
        )

    def find_risks(self, spellings: Iterable[str]) -> set[str]:
        """Return the risks of scopes, by any of their spellings."""
        found = (self._catalogue.find(spelling) for spelling in spellings)
        return {entry.risk for entry in found if entry is not None}

    def seconds_until(self, instant: int) -> int:
        """Return the whole seconds until an instant (seconds since 1970)."""
        return int(instant - self._now())

    def granted_scopes(self, claims: AccessTokenClaims) -> list[GrantedScope]:
        """Return the scopes that the token still has, each with its spelling in the token.

        A scope that was withdrawn from the client, or is stopped, is removed from its tokens. A
        token without scopes is inactive.
        """
        found = self._scopes_of_client(claims)
        for origin in claims.exchanged_from:
            earlier = _at(claims, origin)
            if origin.acts:
                actor = self._directory.find(origin.client_id)
                usable = actor is not None and self._is_usable(actor, earlier)
                found = found if usable else []
            else:
                kept = self._scopes_of_client(earlier)
                found = [each for each in found if each in kept]
        if found and claims.authorization_details and not self._are_details_granted(claims):
            # Without a detail, the token would permit more than with it.
            return []
        return found

    def _scopes_of_client(self, claims: AccessTokenClaims) -> list[GrantedScope]:
        client = self._directory.find(claims.client_id)
        if client is None or not self._is_usable(client, claims):
            return []
        found = []
        for spelling in claims.scope.split(" "):
            entry = self._catalogue.find(spelling)
            if entry is not None and entry.name in client.allowed_scopes:
                found.append((spelling, entry))
        stops = self._stops
        return [each for each in found if not stops.find_of_scope(each[1])] if stops.any else found

    def _is_usable(self, client: ClientEntry, claims: AccessTokenClaims) -> bool:
        if self._stops.any and self._stops.find_of_client(client.id):
            return False
        # A new client may have the id of a deleted one; the old client's tokens stay invalid.
        latest = claims.issued_at_microseconds + self._clock_skew_microseconds
        return client.is_usable(self._now()) and latest >= client.created_at * 1_000_000

    def _are_details_granted(self, claims: AccessTokenClaims) -> bool:
        """Return whether the grants of the client that the details were granted to cover them."""
        first = next((each for each in claims.exchanged_from if not each.acts), None)
        client = self._directory.find(first.client_id if first else claims.client_id)
        return client is not None and self._details.is_covered(client, claims.authorization_details)


def _at(claims: AccessTokenClaims, origin: Origin) -> AccessTokenClaims:
    """Return the claims of an earlier token, as far as revocation compares them."""
    return msgspec.structs.replace(
        claims, jti=origin.jti, client_id=origin.client_id, iat=origin.iat
    )
