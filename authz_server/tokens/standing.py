"""Judges a verified token by the present state: cut-offs, clients, scopes, details and stops.

Introspection, token exchange and status lists use the same judgement. A token that was revoked by
itself is found by its ``jti``, before it is judged.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from authz_server.clients.cache import ClientCache
from authz_server.scopes.catalogue import ScopeCatalogue, ScopeEntry
from authz_server.tokens.authorization_details import DetailRules
from authz_server.tokens.claims import AccessTokenClaims, Origin, read_instant
from authz_server.tokens.revocations import RevocationState
from authz_server.tokens.stops import StopState

GrantedScope = tuple[str, ScopeEntry]


class Standing(NamedTuple):
    """The limits of the tokens of one client, key and set of scopes.

    Attributes:
        ended_until: tokens issued up to this time never stand again (microseconds since 1970).
        granted: the scopes that later tokens still have, each with its spelling in the token.
        is_whole: whether these are all of its scopes, and its client may be used.
    """

    ended_until: float
    granted: Sequence[GrantedScope]
    is_whole: bool


#: Returns the standing of tokens that were not exchanged: by client, key and spellings of scopes.
FindStanding = Callable[[str, str, Sequence[str]], Standing]
_ENDED = Standing(math.inf, (), is_whole=False)


class TokenStanding:
    """Judges tokens by the caches of this process.

    Args:
        revocations: the cut-offs, and the revoked tokens.
        directory: clients.
        catalogue: scopes.
        details: checks authorization details.
        stops: the stopped clients and scopes.
        is_key_ended: returns whether a key is revoked or removed.
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
        is_key_ended: Callable[[str], bool],
        now: Callable[[], float],
        clock_skew_seconds: int,
    ) -> None:
        self._revocations = revocations
        self._directory = directory
        self._catalogue = catalogue
        self._details = details
        self._stops = stops
        self.is_key_ended = is_key_ended
        self._now = now
        self._clock_skew_microseconds = clock_skew_seconds * 1_000_000

    async def is_origin_revoked(self, claims: AccessTokenClaims) -> bool:
        """Return whether a token that this one was exchanged from was revoked by itself.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        for origin in claims.exchanged_from:
            if await self._revocations.is_revoked(origin.jti):
                return True
        return False

    def find_risks(self, spellings: Iterable[str]) -> set[str]:
        """Return the risks of scopes, by any of their spellings."""
        found = (self._catalogue.find(spelling) for spelling in spellings)
        return {entry.risk for entry in found if entry is not None}

    def seconds_until(self, instant: int) -> int:
        """Return the whole seconds until an instant (seconds since 1970)."""
        return int(instant - self._now())

    def granted_scopes(self, claims: AccessTokenClaims, kid: str) -> Sequence[GrantedScope]:
        """Return the scopes that the token still has, each with its spelling in the token.

        A token without scopes is inactive.

        Args:
            claims: its claims.
            kid: the key that signed it; empty for a reference token.
        """
        standing = self.judge(
            claims.client_id,
            kid,
            claims.scope.split(" "),
            claims.exchanged_from,
            claims.authorization_details,
        )
        issued_at = claims.issued_at_microseconds
        if issued_at <= standing.ended_until:
            return ()
        is_ended = issued_at <= self._revocations.latest_of_audience(claims.aud)
        return () if is_ended else standing.granted

    def find_end_of_audience(self, audience: str | Sequence[str]) -> int:
        """Return the time of issue up to which tokens for an ``aud`` are revoked; -1: none is."""
        return self._revocations.latest_of_audience(audience)

    def judge(  # noqa: PLR0913, PLR0917 - the facts of a token
        self,
        client_id: str,
        kid: str,
        spellings: Sequence[str],
        origins: Sequence[Origin] = (),
        details: Sequence[dict[str, Any]] = (),
        find: FindStanding | None = None,
    ) -> Standing:
        """Return the standing of tokens with the same facts.

        A scope that was withdrawn from the client, itself or with its resource server, or is
        stopped, is removed from its tokens. A token of a token exchange stands as long as every
        token that it was exchanged from.

        Args:
            client_id: their client.
            kid: the key that signed them; empty for reference tokens.
            spellings: their scopes.
            origins: the tokens that they were exchanged from.
            details: their authorization details (RFC 9396).
            find: :meth:`find`, or the same from memory.
        """
        find = find or self.find
        found = find(client_id, kid, spellings)
        if not origins and not details:
            return found
        own_end, granted, is_whole = found
        first_id = None
        for origin in origins:
            # An actor token need not have the scopes.
            earlier = find(origin.client_id, origin.kid, () if origin.acts else spellings)
            ended_until = max(earlier.ended_until, self.find_end_of_audience(origin.aud))
            if read_instant(origin.jti, origin.iat) <= ended_until:
                return _ENDED
            if not origin.acts:
                first_id = first_id or origin.client_id
                granted = [each for each in granted if each in earlier.granted]
            elif not earlier.is_whole:
                granted = ()
            is_whole = is_whole and earlier.is_whole
        if details and granted and not self._are_granted(first_id or client_id, details):
            # Without a detail, the token would permit more than with it.
            granted, is_whole = (), False
        return Standing(own_end, granted, is_whole)

    def find(self, client_id: str, kid: str, spellings: Sequence[str]) -> Standing:
        """Return the standing of tokens that were not exchanged, without their details.

        Args:
            client_id: their client.
            kid: the key that signed them.
            spellings: their scopes.
        """
        client = self._directory.find(client_id)
        # The key may have been revoked since the signature was verified, or be an origin's.
        if client is None or self.is_key_ended(kid):
            return _ENDED
        # A new client may have the id of a deleted one; the old client's tokens stay invalid.
        begun = round(client.created_at * 1_000_000) - self._clock_skew_microseconds
        cut_off = self._revocations.latest_cut_off(client_id, kid, spellings)
        ended_until = max(begun - 1, cut_off)
        stops = self._stops
        if (stops.any and stops.find_of_client(client.id)) or not client.is_usable(self._now()):
            return Standing(ended_until, (), is_whole=False)
        granted = []
        reach = client.allowed_resource_servers
        for spelling in spellings:
            entry = self._catalogue.find(spelling)
            if entry is None or entry.name not in client.allowed_scopes:
                continue
            if not reach or entry.resource_server_id in reach:
                granted.append((spelling, entry))
        if stops.any:
            granted = [each for each in granted if not stops.find_of_scope(each[1])]
        return Standing(ended_until, granted, len(granted) == len(spellings))

    def _are_granted(self, client_id: str, details: Sequence[dict[str, Any]]) -> bool:
        """Return whether the grants of the client that got the details still cover them."""
        client = self._directory.find(client_id)
        return client is not None and self._details.is_covered(client, details)
