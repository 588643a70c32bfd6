"""Verify presented access tokens; the result does not reveal why a token is invalid."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.database.orm import Database
from authz_server.tokens.claims import AccessTokenClaims
from authz_server.tokens.issuer import ACCESS_TOKEN_TYPES, REFERENCE_TOKEN_BYTES, hash_reference
from authz_server.tokens.models import ReferenceToken
from keys.errors import TokenRefusedError, UnknownKeyError
from keys.ring import KeyRings

_REFERENCE_CHARACTERS = -(-REFERENCE_TOKEN_BYTES * 4 // 3)
_QUERY = "SELECT claims FROM reference_token WHERE token_hash = ?"
_EXPIRED, _NOT_YET_VALID = "expired", "not yet valid"
_DATE_PROBLEMS = frozenset({_EXPIRED, _NOT_YET_VALID})
_decode = msgspec.json.Decoder(AccessTokenClaims).decode


class _Issued(msgspec.Struct):
    """The issuer of a token."""

    iss: str


_decode_issuer = msgspec.json.Decoder(_Issued).decode


class VerifiedAccessToken(msgspec.Struct, frozen=True):
    """A verified, unexpired access token of this server; ``kid`` is empty for a reference token.

    ``remembered`` is true if the signature was verified earlier and cached.
    """

    claims: AccessTokenClaims
    kid: str
    payload: bytes
    remembered: bool = False


class TokenNotInForceError(TokenRefusedError):
    """A token of this server with a right signature is not in force.

    Args:
        reason: as in the base class.
        claims: its claims.
        kid: the key that signed it; empty for a reference token.
    """

    def __init__(self, reason: str, claims: AccessTokenClaims, kid: str) -> None:
        super().__init__(reason, signature_checked=True)
        self.claims = claims
        self.kid = kid


class TokenVerifier:
    """Verifies access tokens that this server issued.

    Args:
        issuer: the only accepted ``iss``.
        key_rings: verify signatures.
        database: stores reference tokens.
        clock: returns the present time.
        clock_skew_seconds: how far ahead of the clock ``iat`` and ``nbf`` may be.
        maximum_lifetime_seconds: the longest life of a token of this server.
        catch_up: reads what was committed before, by one query; another node may have signed with
            a key that this process has not read yet.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        issuer: str,
        key_rings: KeyRings,
        database: Database,
        clock: Callable[[], datetime],
        clock_skew_seconds: int,
        maximum_lifetime_seconds: int,
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        self._issuer = issuer
        self._key_rings = key_rings
        self._database = database
        self._clock = clock
        self._clock_skew_seconds = clock_skew_seconds
        self._maximum_lifetime_seconds = maximum_lifetime_seconds
        self._catch_up = catch_up

    def spend_one_verification(self) -> None:
        """Spend the time of one signature verification, for equal timing."""
        self._key_rings.spend_one_verification()

    @property
    def clock_correction_seconds(self) -> float:
        """Seconds to add to this machine's clock to get the database's time."""
        return self._key_rings.clock_correction_seconds

    async def find_verified(
        self, token: str, *, at_equal_cost: bool = False
    ) -> VerifiedAccessToken | None:
        """Return the verified token, or None if it is not a current access token of this server.

        Revocation and visibility are checked elsewhere.

        Args:
            token: as presented.
            at_equal_cost: whether each None costs the query of a good token.

        Raises:
            OAuthError: the caches are old, and the database does not answer.
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        try:
            if _is_reference(token):
                return await self._verify_reference(token)
            return self._verify_jwt(token)
        except TokenRefusedError as refusal:
            if not refusal.signature_checked:
                self._key_rings.spend_one_verification()
            if not await self._has_read_key(refusal, always=at_equal_cost):
                return None
        try:
            return self._verify_jwt(token)
        except TokenRefusedError:
            return None

    async def find_revocable(self, token: str) -> tuple[VerifiedAccessToken, bool] | None:
        """Return the token as :meth:`find_verified` does, and whether it is within its dates.

        Outside its dates it is returned too, because the clock may be wrong.

        Raises:
            OAuthError, sqlalchemy.exc.SQLAlchemyError: as :meth:`find_verified`.
        """
        try:
            return await self.verify(token), True
        except TokenNotInForceError as refusal:
            if refusal.reason in _DATE_PROBLEMS:
                return VerifiedAccessToken(refusal.claims, refusal.kid, b""), False
            return None
        except TokenRefusedError as refusal:
            if not refusal.signature_checked:
                self._key_rings.spend_one_verification()
            return None

    def find_all_verified(
        self, session: Session, tokens: Sequence[str]
    ) -> list[VerifiedAccessToken | None]:
        """Return what :meth:`find_verified` returns for each token, by one query.

        Args:
            session: reads the reference tokens.
            tokens: as presented.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the reference tokens cannot be looked up.
        """
        hashes = {
            token: hash_reference(token)
            for token in tokens
            if _is_reference(token) and token.isascii()
        }
        stored: dict[bytes, bytes] = {}
        if hashes:
            table = ReferenceToken
            query = select(table.token_hash, table.claims)
            rows = session.execute(query.where(table.token_hash.in_(set(hashes.values()))))
            stored = {bytes(digest): bytes(claims) for digest, claims in rows}
        return [self._find_stored(token, stored.get(hashes.get(token, b""))) for token in tokens]

    def _find_stored(self, token: str, claims: bytes | None) -> VerifiedAccessToken | None:
        try:
            if not _is_reference(token):
                return self._verify_jwt(token)
            self._key_rings.spend_one_verification()
            return None if claims is None else self._require_in_force(claims, "")
        except TokenRefusedError as refusal:
            if not refusal.signature_checked:
                self._key_rings.spend_one_verification()
            return None

    async def verify(self, token: str) -> VerifiedAccessToken:
        """Return the verified token, as :meth:`find_verified`, or raise the reason of its refusal.

        Raises:
            TokenRefusedError: it is not a current access token of this server.
            TokenNotInForceError: likewise; its signature is right.
            OAuthError, sqlalchemy.exc.SQLAlchemyError: as :meth:`find_verified`.
        """
        if _is_reference(token):
            return await self._verify_reference(token)
        try:
            return self._verify_jwt(token)
        except UnknownKeyError as refusal:
            if not await self._has_read_key(refusal):
                raise
        return self._verify_jwt(token)

    async def _has_read_key(self, refusal: TokenRefusedError, *, always: bool = False) -> bool:
        """Read the changes if the key of a token is missing; return whether it is there now.

        Args:
            refusal: of a token.
            always: read them for any refusal.
        """
        is_missing = isinstance(refusal, UnknownKeyError) and self._is_own(refusal.payload)
        if always or is_missing:
            await self._catch_up()
        return isinstance(refusal, UnknownKeyError) and self._key_rings.accepts(refusal.kid)

    def _is_own(self, payload: bytes) -> bool:
        """Return whether a token may be of this server: others are presented in exchanges."""
        try:
            return _decode_issuer(payload).iss == self._issuer
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False

    def _verify_jwt(self, token: str) -> VerifiedAccessToken:
        verified = self._key_rings.verify(token)
        if verified.header["typ"] not in ACCESS_TOKEN_TYPES:
            raise TokenRefusedError("not an access token", signature_checked=True)
        return self._require_in_force(
            verified.payload, verified.kid, remembered=verified.remembered
        )

    async def _verify_reference(self, token: str) -> VerifiedAccessToken:
        # Equal timing: spend the time of a signature verification before the query.
        self._key_rings.spend_one_verification()
        found = None
        if token.isascii():
            found = await self._database.fetch_one(_QUERY, hash_reference(token))
        if found is None:
            raise TokenRefusedError("unknown reference token", signature_checked=True)
        return self._require_in_force(bytes(found[0]), "")

    def _require_in_force(
        self, payload: bytes, kid: str, *, remembered: bool = False
    ) -> VerifiedAccessToken:
        try:
            # Decode first: msgspec skips invalid UTF-8 in members that it ignores.
            claims = _decode(payload.decode())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise TokenRefusedError("malformed claims", signature_checked=True) from None
        problem = self._find_problem(claims)
        if problem:
            raise TokenNotInForceError(problem, claims, kid)
        return VerifiedAccessToken(claims, kid, payload, remembered)

    def _find_problem(self, claims: AccessTokenClaims) -> str:
        """Return the claim that makes the token invalid, as a phrase; empty: it is in force."""
        now = self._clock().timestamp() + self.clock_correction_seconds
        latest_start = now + self._clock_skew_seconds
        problem = ""
        if claims.iss != self._issuer:
            problem = "another issuer"
        elif not claims.is_sound():
            problem = "malformed claims"
        elif not now < claims.exp:
            problem = _EXPIRED
        elif not claims.iat <= latest_start or not 0 <= claims.nbf <= latest_start:
            problem = _NOT_YET_VALID
        elif not 0 < claims.exp - claims.iat <= self._maximum_lifetime_seconds:
            problem = "too long a lifetime"
        return problem


def _is_reference(token: str) -> bool:
    return len(token) == _REFERENCE_CHARACTERS and "." not in token
