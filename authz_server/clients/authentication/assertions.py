"""Client assertions: JWTs by which clients authenticate (RFC 7523, 2.2; draft rfc7523bis).

The audience is the issuer alone, so that an assertion for another server, whose address a client
was given by mistake or malice, is worth nothing here.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache, partial
from typing import Any, ClassVar, NamedTuple

from authz_server.clients.authentication.method import (
    AuthenticationRequest,
    ClientAuthenticationMethod,
    Credentials,
    Reading,
    Verdict,
)
from authz_server.clients.cache import ClientEntry
from authz_server.database.single_use import SingleUse
from authz_server.errors import OAuthError
from keys.errors import TokenRefusedError
from keys.jose.compact import parse_json_object
from keys.jose.foreign import ForeignToken, is_same_algorithm, parse_foreign

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
MAXIMUM_ASSERTION_BYTES = 8_192
MAXIMUM_LIFETIME_SECONDS = 300
MAXIMUM_JTI_CHARACTERS = 1_024
HMAC_ALGORITHMS: Mapping[str, str] = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
#: rfc7523bis adds the last one.
TYPES = frozenset({"", "jwt", "client-authentication+jwt"})


class Assertion(NamedTuple):
    """A JWT as presented; nothing in it is trusted before it is verified.

    Attributes:
        token: the parsed token.
        claims: the members of its payload.
    """

    token: ForeignToken
    claims: Mapping[str, Any]

    @property
    def alg(self) -> str:
        """The algorithm of its header."""
        alg: str = self.token.header["alg"]
        return alg


class AssertionRules:
    """The rules of claims and headers, which do not depend on the client.

    Args:
        issuer: the only accepted audience.
        algorithms: the permitted algorithms.
        clock_skew_seconds: how far ahead of the clock ``iat`` and ``nbf`` may be, and how far
            behind ``exp``.
        audience_is_text: whether a list with the issuer alone is refused as audience.
    """

    def __init__(
        self,
        issuer: str,
        algorithms: Collection[str],
        clock_skew_seconds: int,
        *,
        audience_is_text: bool = False,
    ) -> None:
        self._audiences: tuple[object, ...] = (issuer,) if audience_is_text else (issuer, [issuer])
        self._algorithms = frozenset(algorithms)
        self._clock_skew_seconds = clock_skew_seconds

    def last_use_at(self, assertion: Assertion) -> float:
        """Return the end of the time in which an assertion is accepted (seconds since 1970)."""
        expires_at: int = assertion.claims["exp"]
        return expires_at + self._clock_skew_seconds

    def find_cause(self, assertion: Assertion, now: float) -> str:
        """Return the cause for which the assertion is refused; empty if it breaks no rule.

        Args:
            assertion: the assertion.
            now: seconds since 1970 UTC.
        """
        claims = assertion.claims
        if assertion.token.typ not in TYPES:
            return "assertion_type"
        if assertion.alg not in self._algorithms:
            return "assertion_algorithm"
        if not _are_sound(claims):
            return "assertion_malformed"
        if claims["iss"] != claims["sub"]:
            return "assertion_issuer"
        if claims.get("aud") not in self._audiences:
            return "assertion_audience"
        return self._find_cause_of_times(claims, now)

    def _find_cause_of_times(self, claims: Mapping[str, Any], now: float) -> str:
        expires_at, skew = claims["exp"], self._clock_skew_seconds
        starts_at = max(claims.get("iat", 0), claims.get("nbf", 0))
        if now >= expires_at + skew:
            return "assertion_expired"
        if starts_at > now + skew:
            return "assertion_not_yet_valid"
        issued_at = claims.get("iat", now + skew)
        # Without an "iat", or with one ahead of the clock, the present limits the lifetime.
        if expires_at - min(issued_at, now + skew) > MAXIMUM_LIFETIME_SECONDS:
            return "assertion_lifetime"
        return ""


def _are_sound(claims: Mapping[str, Any]) -> bool:
    """Return whether the claims are present and of their types (RFC 7519, 4.1)."""
    for name in ("iss", "sub", "jti"):
        text = claims.get(name)
        if not (isinstance(text, str) and text and text.isprintable()):
            return False
    expires_at = claims.get("exp")
    # A bool is an int; a number with a fraction or an exponent is a float.
    if type(expires_at) is not int or expires_at < 0:
        return False
    for name in ("iat", "nbf"):
        if name in claims:
            start = claims[name]
            if type(start) is not int or not 0 <= start < expires_at:
                return False
    return len(claims["jti"]) <= MAXIMUM_JTI_CHARACTERS


def read_assertion(form: Mapping[str, str]) -> Assertion | None:
    """Return the JWT with which a form authenticates its sender; None if there is none.

    Raises:
        OAuthError: ``client_authentication_failed``; the value is not a signed JWT.
    """
    assertion = form.get("client_assertion")
    if assertion is None or form.get("client_assertion_type") != JWT_BEARER:
        return None
    try:
        return parse_assertion(assertion)
    except TokenRefusedError as refusal:
        claimed = form.get("client_id")
        raise _refusal("assertion_malformed", claimed, refusal.reason) from None


@lru_cache(maxsize=32)
def parse_assertion(assertion: str) -> Assertion:
    """Return the parts of a JWT; several methods look at the same one.

    Raises:
        TokenRefusedError: it is not a signed JWT.
    """
    token = parse_foreign(assertion, MAXIMUM_ASSERTION_BYTES)
    return Assertion(token, parse_json_object(token.payload))


def _refusal(cause: str, client_id: str | None, detail: str = "") -> OAuthError:
    reason = "client_authentication_failed"
    return OAuthError(reason, detail, cause=cause, client_id=client_id or "")


class ClientAssertion(ClientAuthenticationMethod):
    """A method by which a client signs an assertion about itself.

    An assertion is used up only after everything else is right, so that a refused request does not
    invalidate one that its client has yet to send.

    Args:
        rules: the rules of claims.
        single_use: accepts each assertion once over all processes and nodes.
        is_foreign: returns whether the issuer of an assertion is another party, whose assertions
            another method verifies.

    Attributes:
        IS_SYMMETRIC: whether the signature is made with a secret.
    """

    IS_KEYED: ClassVar[bool] = True
    IS_SYMMETRIC: ClassVar[bool]

    def __init__(
        self,
        rules: AssertionRules,
        single_use: SingleUse,
        is_foreign: Callable[[str], bool] = lambda _issuer: False,
    ) -> None:
        self._rules = rules
        self._single_use = single_use
        self._is_foreign = is_foreign

    def recognise(self, request: AuthenticationRequest) -> Credentials | None:
        """Return the assertion in the form.

        Raises:
            OAuthError: ``client_authentication_failed``; it is not a signed JWT, or ``client_id``
                is not its subject (RFC 7521, 4.2).
        """
        assertion = read_assertion(request.form)
        if assertion is None or not self._is_mine(assertion):
            return None
        subject = assertion.claims.get("sub")
        claimed = request.form.get("client_id")
        if not isinstance(subject, str) or not subject:
            raise _refusal("assertion_malformed", claimed)
        if claimed not in (None, subject):
            raise _refusal("assertion_issuer", claimed)
        proof = request.form["client_assertion"].encode()
        return Credentials(self.NAMES[0], (Reading(subject, proof),))

    def verify(self, reading: Reading, client: ClientEntry, address: str, now: float) -> Verdict:
        """Check the rules, then the signature by the client's keys or secrets."""
        del address
        assertion = parse_assertion(reading.proof.decode())
        cause = self._rules.find_cause(assertion, now)
        if cause:
            return Verdict(cause=cause)
        return self._verify_signature(assertion, client, now)

    @abstractmethod
    def _verify_signature(self, assertion: Assertion, client: ClientEntry, now: float) -> Verdict:
        """Return the verdict on an assertion that breaks no rule of claims."""

    def _accept(self, assertion: Assertion, client: ClientEntry, credential: str) -> Verdict:
        """Return the verdict on a right signature: it counts once the assertion is used up."""
        registered = client.properties.token_endpoint_auth_signing_alg
        if registered is not None and not is_same_algorithm(registered, assertion.alg):
            return Verdict(credential, "assertion_algorithm")
        return Verdict(credential, conclude=partial(self._use_up, assertion, credential))

    async def _use_up(self, assertion: Assertion, credential: str) -> Verdict:
        claims = assertion.claims
        value = f"{claims['sub']}\0{claims['jti']}".encode()
        expires_at = self._rules.last_use_at(assertion)
        is_first = await self._single_use.use("client_assertion", value, expires_at)
        return Verdict(credential, "" if is_first else "assertion_replayed")

    def _is_mine(self, assertion: Assertion) -> bool:
        if (assertion.alg in HMAC_ALGORITHMS) != self.IS_SYMMETRIC:
            return False
        issuer = assertion.claims.get("iss")
        is_own = issuer == assertion.claims.get("sub")
        return is_own or not isinstance(issuer, str) or not self._is_foreign(issuer)
