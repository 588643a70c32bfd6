"""Issue access tokens, for every grant."""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec

from authz_server.database.orm import Database
from authz_server.errors import OAuthError
from authz_server.plugin_manager import PluginManager
from authz_server.tokens.authorization import Authorization
from authz_server.tokens.claims import new_jti
from authz_server.tokens.decisions import decision_of
from authz_server.tokens.models import ReferenceToken
from authz_server.tokens.status_lists.entries import add_entry
from authz_server.tokens.status_lists.indexes import BlockKey, StatusIndexes
from authz_server.tokens.status_lists.publication import uri_of
from authz_server.waiting import Lane, Step
from keys.errors import BackendUnavailable, KeysError
from keys.ring import KeyRings, SignedToken

#: RFC 9068, 2.1, and RFC 7519, 5.1 for verifiers that accept only ``JWT``.
ACCESS_TOKEN_TYPES = frozenset({"at+jwt", "JWT"})
REFERENCE_TOKEN_BYTES = 32

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_encode = msgspec.json.Encoder().encode


class IssuedToken(msgspec.Struct, frozen=True, gc=False):
    """An issued token with the values for the response and the audit record.

    ``backend_request_id`` is the remote key backend's id of the signing request.
    """

    access_token: str
    jti: str
    kid: str
    issued_at: int
    expires_at: int
    backend_request_id: str = ""


class TokenIssuer:
    """Issues access tokens.

    Args:
        issuer: the ``iss`` of every token.
        key_rings: sign.
        default_ring: the ring for resource servers without a ring of their own.
        plugins: may add claims.
        database: stores reference tokens; a JWT uses no table.
        clock: returns the present time.
        status_indexes: gives the entries in status lists.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        issuer: str,
        key_rings: KeyRings,
        default_ring: str,
        plugins: PluginManager,
        database: Database,
        clock: Callable[[], datetime],
        status_indexes: StatusIndexes,
    ) -> None:
        self._issuer = issuer
        self._key_rings = key_rings
        self._default_ring = default_ring
        self._plugins = plugins
        self._database = database
        self._clock = clock
        self._status_indexes = status_indexes
        #: The last key that signed for a ring.
        self._kids: dict[str, str] = {}

    async def issue(
        self, authorization: Authorization, confirmation: Mapping[str, str] | None
    ) -> IssuedToken:
        """Return a token for the authorization.

        Args:
            authorization: what the client is granted; the rules share it between requests.
            confirmation: the ``cnf`` of the token, from the request's proofs; None: a bearer token.

        Raises:
            OAuthError: a plugin refuses, or no key can sign.
            sqlalchemy.exc.SQLAlchemyError: a reference token cannot be stored.
        """
        microseconds = self._now()
        issued_at = microseconds // 1_000_000
        expires_at = issued_at + authorization.lifetime_seconds
        if authorization.expires_at:
            expires_at = min(expires_at, authorization.expires_at)
            if expires_at <= issued_at:
                raise OAuthError("lifetime_over", client_id=authorization.client_id)
        audience = authorization.audience
        claims: dict[str, object] = {
            "iss": self._issuer,
            "sub": authorization.subject or authorization.client_id,
            "client_id": authorization.client_id,
            "aud": audience[0] if len(audience) == 1 else audience,
            "iat": issued_at,
            "exp": expires_at,
            "jti": new_jti(microseconds),
            "scope": authorization.scope,
        }
        if confirmation is not None:
            claims["cnf"] = confirmation
        if authorization.claims is not None:
            claims.update(authorization.claims)
        if authorization.token_format == "reference":  # noqa: S105 - a format's name
            self._require_clock()
            return await Step(Lane.DATABASE, partial(self._store, claims, issued_at, expires_at))
        if self._plugins.adds_claims:
            decision = decision_of(authorization, confirmation)
            claims.update(await Step(Lane.PLUGINS, partial(self._plugins.token_claims, decision)))
        if authorization.status_list:
            return await self._sign_listed(claims, authorization, expires_at)
        return await self._sign(claims, authorization, issued_at, expires_at)

    async def _sign_listed(
        self, claims: dict[str, object], authorization: Authorization, expires_at: int
    ) -> IssuedToken:
        """Return a signed token with an entry in a status list of its key."""
        ring = authorization.ring or self._default_ring
        origins, details = claims.get("exchanged_from"), claims.get("authorization_details")
        audience = authorization.audience
        key = BlockKey(
            authorization.status_list,
            authorization.client_id,
            authorization.scope,
            self._kids.get(ring, ""),
            self._status_indexes.end_of_period(expires_at),
            _encode(origins).decode() if origins else "",
            _encode(details).decode() if details else "",
            " ".join(audience),
        )
        while True:
            entry, instant = await self._status_indexes.reserve(key, self._now)
            # The instant of a token is not before that of its block, or no cut-off would find it.
            issued_at = instant // 1_000_000
            claims["iat"] = issued_at
            claims["jti"] = add_entry(new_jti(instant), entry)
            place = {"idx": entry.position, "uri": uri_of(self._issuer, entry.list_id)}
            claims["status"] = {"status_list": place}
            issued = await self._sign(claims, authorization, issued_at, expires_at)
            if issued.kid == key.kid:
                return issued
            # The ring has another key; the entry is left unused.
            self._kids[ring] = issued.kid
            key = key._replace(kid=issued.kid)

    def _now(self) -> int:
        """Return microseconds since 1970."""
        return (self._clock() - _EPOCH) // _MICROSECOND

    async def _sign(
        self,
        claims: dict[str, object],
        authorization: Authorization,
        issued_at: int,
        expires_at: int,
    ) -> IssuedToken:
        try:
            signed = await sign_waiting(
                self._key_rings,
                authorization.ring or self._default_ring,
                _encode(claims),
                authorization.token_type,
                authorization.lifetime_seconds,
            )
        except BackendUnavailable as error:
            raise _unavailable(error) from error
        except KeysError as error:
            raise OAuthError("server_error", str(error)) from error
        return IssuedToken(
            signed.token,
            str(claims["jti"]),
            signed.kid,
            issued_at,
            expires_at,
            signed.request_id,
        )

    def _require_clock(self) -> None:
        """Refuse a token that needs no signature where none is made: cut-offs would not find it."""
        try:
            self._key_rings.require_clock()
        except BackendUnavailable as error:
            raise _unavailable(error) from error

    def _store(self, claims: dict[str, object], issued_at: int, expires_at: int) -> IssuedToken:
        handle = secrets.token_urlsafe(REFERENCE_TOKEN_BYTES)
        jti = str(claims["jti"])
        with self._database.transaction() as session:
            session.add(
                ReferenceToken(
                    token_hash=hash_reference(handle),
                    jti=jti,
                    client_id=str(claims["client_id"]),
                    claims=_encode(claims),
                    expires_at=datetime.fromtimestamp(expires_at, UTC),
                )
            )
        return IssuedToken(handle, jti, "", issued_at, expires_at)


def _unavailable(error: BackendUnavailable) -> OAuthError:
    return OAuthError("temporarily_unavailable", str(error), retry_after_seconds=error.retry_after)


async def sign_waiting(
    key_rings: KeyRings, ring: str, payload: bytes, typ: str, lifetime_seconds: int
) -> SignedToken:
    """Return the payload signed by the ring; await a step if the backend or the database is called.

    Raises:
        KeysError: as :meth:`~keys.ring.KeyRings.sign`.
    """
    if key_rings.waits_to_sign(ring):
        return await Step(
            Lane.SIGNING,
            partial(key_rings.sign, ring, payload, typ=typ, lifetime_seconds=lifetime_seconds),
        )
    return key_rings.sign(ring, payload, typ=typ, lifetime_seconds=lifetime_seconds)


def hash_reference(handle: str) -> bytes:
    """Return the SHA-256 (32 bytes) under which a reference token is stored."""
    return hashlib.sha256(handle.encode()).digest()
