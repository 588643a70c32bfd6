"""The decision about a request, without I/O: it yields what it needs and is sent the results."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict
from urllib.parse import urlsplit

from authz_verifier.algorithms import ALGORITHMS
from authz_verifier.certificates import require_certificate
from authz_verifier.documents import require_secure
from authz_verifier.dpop import ReplayCache, verify_proof
from authz_verifier.errors import ConfigurationError, invalid_token
from authz_verifier.introspection import MAXIMUM_INTROSPECTED_CHARACTERS
from authz_verifier.key_cache import KeyCache, Snapshot
from authz_verifier.requests import Request, read_credentials
from authz_verifier.responses import Envelope, Responses
from authz_verifier.status_cache import StatusCache
from authz_verifier.status_lists import STATUS_NAMES, VALID, read_reference
from authz_verifier.tokens import Token, TokenRules, UnknownKeyError, require_scopes

Mode = Literal["jwt", "introspection", "hybrid", "status"]
_MODES = ("jwt", "introspection", "hybrid", "status")
TokenType = Literal["at+jwt", "JWT"]
MAXIMUM_CACHE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class LoadKeys:
    """Answered with a snapshot of the keys, the present one if no newer one can be had.

    Attributes:
        newer_than: the snapshot that lacks a key; None if there is none yet.
    """

    newer_than: Snapshot | None


@dataclass(frozen=True, slots=True)
class Introspect:
    """Answered with the members of an introspection response.

    Attributes:
        token: as presented.
        endpoint: the address.
    """

    token: str = field(repr=False)
    endpoint: str


@dataclass(frozen=True, slots=True)
class LoadStatusList:
    """Answered with a status list.

    Attributes:
        uri: its address.
    """

    uri: str


Steps = Generator[LoadKeys | Introspect | LoadStatusList, Any, Token]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a verifier; a wrong one raises ConfigurationError.

    Attributes:
        issuer: the identifier of the authorization server; its metadata is found from it.
        audience: the identifier of the API, which `aud` must contain.
        mode: `jwt` verifies offline; `introspection` queries the server for every token; `hybrid`
            verifies offline, and queries the server for the scopes in `money_scopes`; `status`
            verifies offline, and looks the token up in its status list.
        client_id: the API's credentials at the introspection endpoint.
        client_secret: likewise.
        money_scopes: in mode `hybrid`, the scopes whose use the server must confirm.
        introspection_cache_seconds: how long a response is used again, 0 to 300.
        maximum_introspected_characters: the longest token, percent-encoded, that the server
            introspects: `server.maximum_value_bytes` of authz-server. A longer one is refused
            without a query.
        token_types: accepted `typ` of JWTs. Add `JWT` for servers without RFC 9068.
        algorithms: accepted `alg`, within those of the server's metadata.
        require_binding: refuse tokens that are not bound to a key or certificate.
        public_url: scheme and host under which callers reach the API, if a proxy changes them.
        certificate_header: the header in which a proxy forwards the caller's certificate. Set it
            only if the proxy removes the header from the requests of callers.
        envelope: the form of refusals: `oauth` or `g2p`.
        timeout_seconds: for each request to the authorization server; only the system's resolver
            ends a slow look-up of the host's name.
        keys_kept_seconds: how long keys are used while the server cannot be reached.
        status_kept_seconds: in mode `status`, how long a list is used beyond its `ttl` while it
            cannot be fetched, never beyond its `exp`.
        clock: returns seconds since 1970.
    """

    issuer: str
    audience: str
    mode: Mode = "jwt"
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    money_scopes: Sequence[str] = ()
    introspection_cache_seconds: float = 0
    maximum_introspected_characters: int = MAXIMUM_INTROSPECTED_CHARACTERS
    token_types: Sequence[TokenType] = ("at+jwt",)
    algorithms: Sequence[str] = tuple(sorted(ALGORITHMS))
    require_binding: bool = False
    public_url: str = ""
    certificate_header: str = ""
    envelope: Envelope = "oauth"
    timeout_seconds: float = 5.0
    keys_kept_seconds: float = 3_600.0
    status_kept_seconds: float = 0.0
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        """Check the settings."""
        try:
            require_secure(self.issuer, "issuer")
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        self._check_choices()
        self._check_mode()

    def _check_choices(self) -> None:
        if not self.audience:
            raise ConfigurationError("audience: name the identifier of the API")
        if self.mode not in _MODES:
            raise ConfigurationError("mode: use jwt, introspection, hybrid or status")
        if isinstance(self.token_types, str) or not set(self.token_types) <= {"at+jwt", "JWT"}:
            raise ConfigurationError("token_types: use a list of at+jwt and JWT")
        if isinstance(self.algorithms, str) or not ALGORITHMS.issuperset(self.algorithms):
            raise ConfigurationError(f"algorithms: use a list of {', '.join(sorted(ALGORITHMS))}")
        if self.envelope not in ("oauth", "g2p"):
            raise ConfigurationError("envelope: use oauth or g2p")
        if not 0 <= self.introspection_cache_seconds <= MAXIMUM_CACHE_SECONDS:
            raise ConfigurationError("introspection_cache_seconds: use 0 to 300")
        if self.maximum_introspected_characters < 1:
            raise ConfigurationError("maximum_introspected_characters: use 1 or more")
        if self.timeout_seconds <= 0 or self.keys_kept_seconds <= 0:
            raise ConfigurationError("timeout_seconds, keys_kept_seconds: use more than 0")
        if self.status_kept_seconds < 0:
            raise ConfigurationError("status_kept_seconds: use 0 or more")

    def _check_mode(self) -> None:
        if isinstance(self.money_scopes, str):
            raise ConfigurationError("money_scopes: use a list of scopes")
        if self.mode in ("jwt", "status"):
            return
        if not (self.client_id and self.client_secret):
            raise ConfigurationError(f"mode {self.mode} needs client_id and client_secret")
        if self.mode == "hybrid" and not self.money_scopes:
            raise ConfigurationError("mode hybrid needs money_scopes")


class Options(TypedDict, total=False):
    """The attributes of Settings that have a default, as keyword arguments."""

    mode: Mode
    client_id: str
    client_secret: str
    money_scopes: Sequence[str]
    introspection_cache_seconds: float
    maximum_introspected_characters: int
    token_types: Sequence[TokenType]
    algorithms: Sequence[str]
    require_binding: bool
    public_url: str
    certificate_header: str
    envelope: Envelope
    timeout_seconds: float
    keys_kept_seconds: float
    status_kept_seconds: float
    clock: Callable[[], float]


class Core:
    """Decides about requests. Use `Verifier` or `AsyncVerifier`, which run its steps.

    Args:
        settings: the rules.
        keys: the issuer's documents.
        statuses: the status lists.
    """

    def __init__(self, settings: Settings, keys: KeyCache, statuses: StatusCache) -> None:
        self.settings = settings
        self._statuses = statuses
        self.responses = Responses(
            settings.issuer,
            settings.audience,
            envelope=settings.envelope,
            bearer_allowed=not settings.require_binding,
            certificates=bool(settings.certificate_header),
        )
        self._keys = keys
        self._rules = TokenRules(
            settings.issuer,
            settings.audience,
            frozenset(each.lower() for each in settings.token_types),
            frozenset(settings.algorithms),
        )
        self._replays = ReplayCache()
        self._money_scopes = frozenset(settings.money_scopes)

    def decide(self, request: Request, scopes: tuple[str, ...]) -> Steps:
        """Return the token of a request that may be served.

        Yields:
            what the decision needs: keys, an introspection response, or a status list.

        Raises:
            Refusal: the request must not be served.
        """
        scheme, token = read_credentials(request)
        now = self.settings.clock()
        if self.settings.mode == "introspection":
            accepted = yield from self._introspect(token, now)
        else:
            accepted = yield from self._verify(token, now)
        self._require_binding(accepted.confirmation, scheme, token, request, now)
        require_scopes(accepted, scopes)
        if self.settings.mode == "hybrid" and not self._money_scopes.isdisjoint(scopes):
            accepted = yield from self._confirm(accepted, token, now)
            require_scopes(accepted, scopes)
        if self.settings.mode == "status":
            yield from self._require_status(accepted)
        return accepted

    def forget_threads(self) -> None:
        """Replace locks after a fork: a thread of the parent may have held them."""
        self._replays.forget_threads()

    def _verify(self, token: str, now: float) -> Steps:
        snapshot = self._keys.snapshot()
        if snapshot is None:
            snapshot = yield LoadKeys(None)
        try:
            return self._rules.verify(token, snapshot.keys, now, snapshot.metadata.algorithms)
        except UnknownKeyError:
            newer = yield LoadKeys(snapshot)
        try:
            return self._rules.verify(token, newer.keys, now, newer.metadata.algorithms)
        except UnknownKeyError:
            raise invalid_token("unknown key") from None

    def _introspect(self, token: str, now: float) -> Steps:
        snapshot = self._keys.snapshot()
        if snapshot is None:
            snapshot = yield LoadKeys(None)
        members = yield Introspect(token, snapshot.metadata.introspection_endpoint)
        return self._rules.check_introspected(members, now)

    def _require_status(self, accepted: Token) -> Generator[LoadStatusList, Any, None]:
        """Refuse a token that its status list does not state to be valid."""
        uri, position = read_reference(accepted.claims)
        statuses = self._statuses.find(uri)
        if statuses is None:
            statuses = yield LoadStatusList(uri)
        try:
            status = statuses.find(position)
        except IndexError:
            raise invalid_token("status index") from None
        if status != VALID:
            raise invalid_token(STATUS_NAMES.get(status, "status"))

    def _confirm(self, accepted: Token, token: str, now: float) -> Steps:
        """Confirm a verified token; its binding must be the one that was checked."""
        confirmed = yield from self._introspect(token, now)
        if confirmed.confirmation != accepted.confirmation:
            raise invalid_token("the introspected cnf differs")
        return confirmed

    def _require_binding(
        self, cnf: Mapping[str, Any], scheme: str, token: str, request: Request, now: float
    ) -> None:
        if not cnf.keys() <= {"jkt", "x5t#S256"}:
            raise invalid_token("unknown confirmation method")
        if not cnf and self.settings.require_binding:
            raise invalid_token("not bound")
        if ("jkt" in cnf) != (scheme == "DPoP"):
            # RFC 9449, 7.1 and 7.2: a bound token is not a bearer token, and vice versa.
            raise invalid_token(f"presented as {scheme}")
        if "x5t#S256" in cnf:
            require_certificate(cnf, request.certificate)
        if "jkt" in cnf:
            reached = self._as_reached(request)
            verify_proof(reached, token, cnf["jkt"], now, self._replays)

    def _as_reached(self, request: Request) -> Request:
        """Return the request under the URL that the caller used."""
        if not self.settings.public_url:
            return request
        url = self.settings.public_url.rstrip("/") + urlsplit(request.url).path
        return Request(request.method, url, request.authorization, request.proofs)
