"""Describe the tokens of foreign issuers, by their keys or by their own introspection."""

import base64
import hashlib
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any
from urllib.parse import quote_plus

from authz_server.plugin_api import (
    MAXIMUM_TOKEN_CHARACTERS,
    FetchError,
    ForeignToken,
    IntrospectionSource,
    Issuer,
    Lane,
    PluginServices,
    Secret,
    Step,
    TokenRefusedError,
    hookimpl,
    parse_foreign,
    parse_json_object,
    refer_to,
    require_authorities,
    require_url,
)

logger = logging.getLogger("authz_server.plugins.federated_introspection")

#: The name of this plugin.
NAME = "federated_introspection"
#: The answers of one issuer that are kept.
MAXIMUM_ANSWERS = 10_000
#: An issuer that fails is left alone for a time that doubles with each failure.
FIRST_BACK_OFF_SECONDS, LONGEST_BACK_OFF_SECONDS = 1.0, 60.0
#: How long an answer without ``exp`` is taken to be right.
_LIFETIME_SECONDS = 60
#: The calls of one issuer at a time, so that one that hangs leaves threads to the others.
MAXIMUM_CALLS = 8
_OK = 200
#: The statuses and the errors by which an issuer refuses one token (RFC 6750, 3.1; RFC 7009, 2.2).
#: A proxy in front gives the same statuses, and ``invalid_request`` may concern every request.
_STATUSES_OF_TOKEN = frozenset({400, 413, 414, 422, 431})
_ERRORS_OF_TOKEN = ("invalid_token", "unsupported_token_type")
#: b64token (RFC 6750, 2.1). Any other token, or a longer one, is not sent, because an issuer that
#: refused it would be left alone.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
_MAXIMUM_CHARACTERS = 8_192
_MEMBERS = ("iss", "sub", "client_id", "aud", "exp", "iat", "nbf", "jti", "cnf", "act")
_KEYS_UNAVAILABLE = "assertion_keys_unavailable"
_SETTINGS = frozenset({"cache_seconds", "issuers"})
_OF_ISSUER = frozenset(
    {
        "issuer",
        "scopes",
        "introspection_endpoint",
        "client_id",
        "client_secret",
        "token_prefix",
        "ca_file",
    }
)


@dataclass(frozen=True, slots=True)
class Partner:
    """An issuer as the settings describe it.

    Attributes:
        name: its name in the settings.
        issuer: its ``iss``.
        scopes: the scopes of this server that its tokens may have; one may end with ``/*``.
        endpoint: its introspection endpoint; empty: its tokens are verified by its keys.
        authorization: the header with this server's credentials there.
        token_prefix: the beginning of its opaque tokens; empty: it has none.
        ca_file: the only authorities that are trusted at its endpoint.
    """

    name: str
    issuer: str
    scopes: tuple[str, ...]
    endpoint: str = ""
    authorization: str = field(default="", repr=False)
    token_prefix: str = ""
    ca_file: str = ""

    def permits(self, scope: str) -> bool:
        """Return whether its tokens may have a scope."""
        return any(
            scope == each or (each.endswith("/*") and scope.startswith(each[:-1]))
            for each in self.scopes
        )


class FederatedSource(IntrospectionSource):
    """Asks the issuers of tokens.

    Args:
        partners: the issuers.
        services: the services of the server.
        cache_seconds: how long an answer of an introspection endpoint is kept.
    """

    NAME = NAME

    def __init__(
        self, partners: list[Partner], services: PluginServices, cache_seconds: int
    ) -> None:
        self._by_issuer = {each.issuer: each for each in partners}
        opaque = [each for each in partners if each.token_prefix]
        self._opaque = sorted(opaque, key=lambda each: -len(each.token_prefix))
        self._services = services
        self._endpoints = {
            each.name: _Endpoint(each, services, cache_seconds)
            for each in partners
            if each.endpoint
        }

    async def find_active(self, token: str) -> Mapping[str, Any] | None:
        """Return the members that the issuer of a token gives; None: no issuer accepts it.

        Raises:
            FetchError: its keys or its endpoint cannot be had.
        """
        parsed, claims = _parse(token)
        partner = self._find_partner(token, claims)
        if partner is None:
            return None
        if partner.endpoint:
            found = await self._endpoints[partner.name].ask(token)
        elif parsed is None:
            found = None
        else:
            found = await self._verify(partner, parsed, claims)
        return None if found is None else _limit(partner, found)

    def _find_partner(self, token: str, claims: Mapping[str, Any]) -> Partner | None:
        issuer = claims.get("iss")
        if isinstance(issuer, str):
            return self._by_issuer.get(issuer)
        return next((each for each in self._opaque if token.startswith(each.token_prefix)), None)

    async def _verify(
        self, partner: Partner, token: ForeignToken, claims: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        issuer: Issuer | None = self._services.find_issuer(partner.issuer)
        if issuer is None:
            return None
        try:
            issuer.check(token, claims, self._services.now().timestamp(), typ="at+jwt")
            await issuer.verify(token)
        except TokenRefusedError as refusal:
            if str(refusal) == _KEYS_UNAVAILABLE:
                raise FetchError(f"there are no keys of the issuer {partner.name}") from refusal
            return None
        return claims


class _Endpoint:
    """The introspection endpoint of an issuer (RFC 7662)."""

    def __init__(self, partner: Partner, services: PluginServices, cache_seconds: int) -> None:
        self._partner = partner
        self._services = services
        self._cache_seconds = cache_seconds
        self._answers: OrderedDict[bytes, tuple[float, Mapping[str, Any]]] = OrderedDict()
        self._lock = threading.Lock()
        self._calls = 0
        self._failures = 0
        self._retry_at = 0.0

    async def ask(self, token: str) -> Mapping[str, Any] | None:
        """Return the members of an active answer; None: the token is inactive.

        Raises:
            FetchError: the issuer gives no usable answer.
        """
        if not _TOKEN.fullmatch(token) or len(quote_plus(token)) > _MAXIMUM_CHARACTERS:
            return None
        key = hashlib.sha256(token.encode()).digest()
        held = self._answers.get(key)
        if held is not None and monotonic() < held[0]:
            return held[1]
        self._begin_call()
        try:
            found = await Step(Lane.SOURCES, partial(self._ask_now, token))
        finally:
            with self._lock:
                self._calls -= 1
        if found is not None and self._cache_seconds:
            self._keep(key, found)
        return found

    def _begin_call(self) -> None:
        name = self._partner.name
        with self._lock:
            if monotonic() < self._retry_at:
                raise FetchError(f"the issuer {name} failed a short time ago")
            # After a failure, one call finds out whether it answers again.
            if self._calls >= (1 if self._failures else MAXIMUM_CALLS):
                raise FetchError(f"the issuer {name} has not answered earlier calls yet")
            self._calls += 1

    def _ask_now(self, token: str) -> Mapping[str, Any] | None:
        try:
            found = self._exchange(token)
        except TokenRefusedError:
            # It gives no reason to believe that the issuer answers other requests.
            return None
        except FetchError as error:
            self._note_failure(str(error), error.retry_after_seconds)
            raise
        with self._lock:
            if self._failures:
                logger.info("the issuer %s answers again", self._partner.name)
            self._failures, self._retry_at = 0, 0.0
        return found

    def _exchange(self, token: str) -> Mapping[str, Any] | None:
        partner = self._partner
        body = f"token={quote_plus(token)}&token_type_hint=access_token".encode()
        headers = [f"Authorization: {partner.authorization}"] if partner.authorization else []
        headers.append("Content-Type: application/x-www-form-urlencoded")
        reply = self._services.post(partner.endpoint, body, headers, ca_file=partner.ca_file)
        if reply.status in _STATUSES_OF_TOKEN and _is_of_token(reply.body):
            raise TokenRefusedError("refused by its issuer")
        if reply.status != _OK:
            raise reply.as_error()
        try:
            answer = parse_json_object(reply.body)
        except TokenRefusedError as error:
            raise FetchError("the answer is not a JSON object") from error
        if not isinstance(answer.get("active"), bool):
            raise FetchError("the answer has no active")
        if not answer["active"]:
            return None
        if answer.setdefault("iss", partner.issuer) != partner.issuer:
            return None
        present = int(self._services.now().timestamp())
        answer.setdefault("exp", present + _LIFETIME_SECONDS)
        return answer

    def _note_failure(self, problem: str, retry_after: float) -> None:
        self._services.report_failure(NAME, "register_introspection_sources", "unavailable")
        with self._lock:
            if not self._failures:
                logger.warning("the issuer %s gives no answer: %s", self._partner.name, problem)
            pause = max(FIRST_BACK_OFF_SECONDS * 2 ** min(self._failures, 10), retry_after)
            self._failures += 1
            self._retry_at = monotonic() + min(pause, LONGEST_BACK_OFF_SECONDS)

    def _keep(self, key: bytes, found: Mapping[str, Any]) -> None:
        expires_at = found["exp"]
        if type(expires_at) is not int:
            return
        left = expires_at - self._services.now().timestamp()
        with self._lock:
            self._answers[key] = monotonic() + min(self._cache_seconds, left), found
            self._answers.move_to_end(key)
            while len(self._answers) > MAXIMUM_ANSWERS:
                self._answers.popitem(last=False)


class FederatedIntrospection:
    """The plugin: ``issuers`` of its settings has a table for each issuer."""

    @hookimpl
    def start(self, settings: Mapping[str, Any], services: PluginServices) -> None:
        """Read the settings.

        Raises:
            ValueError: a value cannot be used.
        """
        _require_known(settings, _SETTINGS)
        cache_seconds = settings.get("cache_seconds", 0)
        if type(cache_seconds) is not int or not 0 <= cache_seconds <= _LIFETIME_SECONDS:
            raise ValueError(f"cache_seconds: use 0 to {_LIFETIME_SECONDS}")
        tables = settings.get("issuers", {})
        if not isinstance(tables, Mapping) or not tables:
            raise ValueError("issuers: there must be a table for each issuer")
        partners = [_read_partner(name, table) for name, table in tables.items()]
        if len({each.issuer for each in partners}) != len(partners):
            raise ValueError("issuers: two tables have one issuer")
        for each in partners:
            if not each.endpoint and services.find_issuer(each.issuer) is None:
                raise ValueError(f"issuers.{each.name}.issuer: no [issuers.NAME] has this issuer")
        self._source = FederatedSource(partners, services, cache_seconds)

    @hookimpl
    def register_introspection_sources(self) -> list[IntrospectionSource]:
        """Return the source."""
        return [self._source]


def _read_partner(name: str, table: object) -> Partner:
    if not isinstance(table, Mapping):
        raise ValueError(f"issuers.{name}: use a table")  # noqa: TRY004 - one error for every rule
    _require_known(table, _OF_ISSUER, f"issuers.{name}.")
    scopes, secret = table.get("scopes"), table.get("client_secret")
    if not isinstance(scopes, list) or not scopes or not all(isinstance(s, str) for s in scopes):
        raise ValueError(f"issuers.{name}.scopes: list the scopes that its tokens may have")
    texts = {key: table.get(key, "") for key in _OF_ISSUER - {"scopes", "client_secret"}}
    if not all(isinstance(each, str) for each in texts.values()) or not texts["issuer"]:
        raise ValueError(f"issuers.{name}: issuer and the other values are texts")
    endpoint, client_id = texts["introspection_endpoint"], texts["client_id"]
    if bool(client_id) != isinstance(secret, Secret) or (client_id and not endpoint):
        raise ValueError(f"issuers.{name}: endpoint, client_id and client_secret belong together")
    if texts["token_prefix"] and not endpoint:
        raise ValueError(f"issuers.{name}.token_prefix: there is no introspection_endpoint")
    if endpoint:
        require_url(f"issuers.{name}.introspection_endpoint", endpoint)
    require_authorities(f"issuers.{name}.ca_file", texts["ca_file"])
    for scope in scopes:
        refer_to("scope", f"issuers.{name}.scopes", scope)
    authorization = _basic(client_id, secret.reveal()) if isinstance(secret, Secret) else ""
    return Partner(
        name,
        texts["issuer"],
        tuple(scopes),
        endpoint,
        authorization,
        texts["token_prefix"],
        texts["ca_file"],
    )


def _basic(client_id: str, secret: bytes) -> str:
    """Return the value of the header (RFC 6749, 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _require_known(table: Mapping[str, Any], known: frozenset[str], prefix: str = "") -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"there is no key {prefix}{key}: there are {', '.join(sorted(known))}")


def _is_of_token(body: bytes) -> bool:
    """Return whether an error can only concern the token."""
    try:
        return parse_json_object(body).get("error") in _ERRORS_OF_TOKEN
    except TokenRefusedError:
        return False


def _parse(token: str) -> tuple[ForeignToken | None, Mapping[str, Any]]:
    """Return a JWT and its claims, of which nothing is verified; of any other token neither."""
    try:
        parsed = parse_foreign(token, MAXIMUM_TOKEN_CHARACTERS)
        return parsed, parse_json_object(parsed.payload)
    except TokenRefusedError:
        return None, {}


def _limit(partner: Partner, found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the known members of an answer, with the scopes that the issuer may give."""
    scope = found.get("scope")
    if not isinstance(scope, str) or "aud" not in found:
        return None
    kept = [each for each in scope.split(" ") if partner.permits(each)]
    if not kept:
        return None
    confirmation = found.get("cnf")
    is_bound = isinstance(confirmation, dict) and "jkt" in confirmation
    members = {name: found[name] for name in _MEMBERS if name in found}
    return {**members, "scope": " ".join(kept), "token_type": "DPoP" if is_bound else "Bearer"}
