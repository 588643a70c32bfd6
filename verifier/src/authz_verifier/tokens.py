"""Access tokens: what a verified one states, and the checks of RFC 9068."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from authz_verifier.compact import CompactToken, parse_compact
from authz_verifier.documents import KeySet
from authz_verifier.errors import Refusal, invalid_token
from authz_verifier.strict_json import parse_object

#: Tolerated difference between the clocks of issuer and API.
SKEW_SECONDS = 10
#: Any other member (crit, b64, jwk, jku, x5u, x5c, zip, enc) is refused, not interpreted.
HEADER_MEMBERS = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
_REQUIRED_STRINGS = ("sub", "client_id", "jti")
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was accepted.

    Attributes:
        claims: everything that the token or the introspection response states.
        scopes: its scopes.
        confirmation: `cnf`: the key or certificate that it is bound to; empty for a bearer token.
        introspected: whether the authorization server confirmed it for this request.
    """

    claims: Mapping[str, Any] = field(repr=False)
    scopes: frozenset[str]
    confirmation: Mapping[str, Any] = field(repr=False)
    introspected: bool = False

    @property
    def client_id(self) -> str:
        """The client that the token was issued to."""
        return str(self.claims.get("client_id", ""))

    @property
    def subject(self) -> str:
        """The subject; with client credentials, the client."""
        return str(self.claims.get("sub", ""))


class UnknownKeyError(Exception):
    """The token names a key that the present key set lacks."""


class TokenRules:
    """Rules for JWT access tokens (RFC 9068, 4) of one issuer for one API. They do no I/O.

    Args:
        issuer: the only accepted `iss`.
        audience: a value that `aud` must contain.
        types: accepted values of `typ`, in lower case.
        algorithms: accepted values of `alg`.
    """

    def __init__(
        self, issuer: str, audience: str, types: frozenset[str], algorithms: frozenset[str]
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._types = types
        self._algorithms = algorithms

    def verify(self, token: str, keys: KeySet, now: float, algorithms: frozenset[str]) -> Token:
        """Verify a JWT.

        Args:
            token: as presented.
            keys: the issuer's keys.
            now: seconds since 1970.
            algorithms: the algorithms in the issuer's metadata.

        Raises:
            Refusal: it is not valid here.
            UnknownKeyError: its `kid` is not in the key set; nothing else is known of it.
        """
        try:
            parsed = parse_compact(token)
        except ValueError as error:
            raise invalid_token(str(error)) from None
        kid, algorithm, typ = self._read_header(parsed)
        if algorithm not in self._algorithms or algorithm not in algorithms:
            raise invalid_token("algorithm")
        verify = keys.find(kid, algorithm)
        if verify is None:
            if kid in keys.kids:
                raise invalid_token("the key has another algorithm")
            raise UnknownKeyError
        if not verify(parsed.signature, parsed.signing_input):
            raise invalid_token("signature")
        try:
            claims = parse_object(parsed.payload)
        except ValueError as error:
            raise invalid_token(f"payload: {error}") from None
        return self._check(claims, now, is_access_token=typ == "at+jwt")

    def check_introspected(self, members: Mapping[str, Any], now: float) -> Token:
        """Check an active introspection response (RFC 7662, 2.2).

        Raises:
            Refusal: the token is inactive, or not valid here.
        """
        if members.get("active") is not True:
            raise invalid_token("inactive")
        if members.get("iss", self._issuer) != self._issuer:
            raise invalid_token("iss")
        if not _contains(members.get("aud"), self._audience):
            raise invalid_token("aud")
        _check_dates(members, now)
        return _make_token(members, introspected=True)

    def _read_header(self, parsed: CompactToken) -> tuple[str, str, str]:
        header = parsed.header
        if not header.keys() <= HEADER_MEMBERS:
            raise invalid_token("header members")
        kid, algorithm, typ = header.get("kid"), header.get("alg"), header.get("typ", "")
        if not (isinstance(kid, str) and isinstance(algorithm, str) and isinstance(typ, str)):
            raise invalid_token("header values")
        typ = typ.lower().removeprefix("application/")
        if typ not in self._types:
            raise invalid_token("typ")
        return kid, algorithm, typ

    def _check(self, claims: Mapping[str, Any], now: float, *, is_access_token: bool) -> Token:
        if claims.get("iss") != self._issuer:
            raise invalid_token("iss")
        if not _contains(claims.get("aud"), self._audience):
            raise invalid_token("aud")
        for name in ("exp", "iat"):
            if name not in claims:
                raise invalid_token(name)
        _check_dates(claims, now)
        for name in _REQUIRED_STRINGS:
            value = claims.get(name, None if is_access_token else "-")
            if not isinstance(value, str) or not value:
                raise invalid_token(name)
        return _make_token(claims, introspected=False)


def require_scopes(token: Token, scopes: tuple[str, ...]) -> None:
    """Require every scope, compared exactly.

    Raises:
        Refusal: one is missing (RFC 6750, 3.1: 403 insufficient_scope).
    """
    if not token.scopes.issuperset(scopes):
        raise Refusal(403, "insufficient_scope", "scope", scopes=scopes)


def _make_token(claims: Mapping[str, Any], *, introspected: bool) -> Token:
    confirmation = claims.get("cnf")
    if confirmation is None:
        confirmation = {}
    elif not isinstance(confirmation, dict) or not confirmation:
        raise invalid_token("cnf")
    return Token(claims, _scopes_of(claims.get("scope")), confirmation, introspected)


def _check_dates(claims: Mapping[str, Any], now: float) -> None:
    """Check the dates that are present, in seconds since 1970."""
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name, _ABSENT)
        if value is _ABSENT:
            continue
        # A boolean is an integer in Python.
        if value.__class__ is not int and value.__class__ is not float:
            raise invalid_token(name)
        if name == "exp":
            if now >= value + SKEW_SECONDS:
                raise invalid_token("expired")
        elif value > now + SKEW_SECONDS:
            raise invalid_token("not valid yet")


def _contains(audience: object, wanted: str) -> bool:
    if isinstance(audience, list):
        return all(isinstance(each, str) for each in audience) and wanted in audience
    return audience == wanted


def _scopes_of(scope: object) -> frozenset[str]:
    if scope is None:
        return frozenset()
    if isinstance(scope, str):
        return frozenset(scope.split(" ")) - {""}
    if isinstance(scope, list) and all(isinstance(each, str) for each in scope):
        return frozenset(scope)
    raise invalid_token("scope")
