"""Log-in at the organisation's OpenID Connect provider, by Authlib's Flask client.

The authorization code flow with PKCE (RFC 7636), ``state``, ``nonce`` and the check of ``iss`` (RFC
9207). The provider's documents are cached as those of other issuers; what a log-in began with is in
its signed ``state``, so that any worker ends it.
"""

import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import flask
import msgspec
from authlib.integrations.base_client import OAuthError as ProviderError
from authlib.integrations.flask_client import FlaskIntegration, FlaskOAuth2App
from requests import RequestException

from authz_server.admin.people.provider_keys import make_authentication
from authz_server.admin.people.refusals import LogInRefusedError
from authz_server.admin.people.sessions import Person
from authz_server.admin.people.transport import ProviderSession
from authz_server.assembly.server import ServerServices
from authz_server.clients.fetching import Access, Fetcher, FetchError
from authz_server.clients.outbound import UrlRefusedError, split_url
from authz_server.errors import OAuthError
from authz_server.waiting import run
from keys.errors import KeysError, TokenRefusedError
from keys.jose.compact import decode_segment, parse_json_object
from keys.jose.foreign import ForeignKey
from keys.jose.jwk import PUBLIC_MEMBERS

_METADATA = "/.well-known/openid-configuration"
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
#: OpenID Connect Core, 3.1.3.7: no algorithm whose key is the client's secret, and not "none".
_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
_DEFAULT_ALGORITHM = "RS256"
_MAXIMUM_SUBJECT_CHARACTERS = 255
_MAXIMUM_NAME_CHARACTERS = 60
_SHOWN_SUBJECT_CHARACTERS = 100
_MAXIMUM_GROUPS = 200
#: Seconds since 1970 that no authentication has; ``datetime`` refuses many of them.
_LATEST = 2**40
_OPERATORS = Access(trusted=True)


class ProviderLogIn(NamedTuple):
    """A log-in at the provider, at its beginning and at its end.

    Attributes:
        state: the ``state`` of the request.
        nonce: the ``nonce`` of the ID token.
        code_verifier: the secret of the code (RFC 7636).
        again: whether the provider has to authenticate the person again.
        at: when it began, in seconds since 1970.
    """

    state: str
    nonce: str
    code_verifier: str
    again: bool
    at: float


class OpenIDProvider:
    """The provider of ``[admin.openid]``.

    Args:
        services: the parts of the server.
        callback: the URL to which the provider sends the browser back.

    Raises:
        SettingsError: the private key cannot be used.
    """

    def __init__(self, services: ServerServices, callback: str) -> None:
        settings = services.settings
        self._settings = settings.admin.openid
        self._callback = callback
        self._skew = settings.tokens.clock_skew_seconds
        self._clock = services.corrected_clock
        # The settings permit an issuer without TLS on loopback, in development.
        self._outbound = msgspec.structs.replace(
            settings.outbound, plain_http=self._settings.uses_plain_http
        )
        # A cache of its own, so that no document of a client displaces the provider's.
        self._fetcher = Fetcher(self._outbound, services.notify)
        self._authenticate = make_authentication(self._settings)

    def begin(self, log_in: ProviderLogIn) -> str:
        """Return where the browser goes; in the context of a Flask request.

        Raises:
            LogInRefusedError: ``provider_unavailable`` or ``provider_answer_invalid``.
        """
        settings = self._settings
        further: dict[str, Any] = {}
        if log_in.again:
            further["max_age"] = settings.max_age_seconds
            if settings.acr_values:
                further["acr_values"] = " ".join(settings.acr_values)
            if not settings.max_age_seconds:
                further["prompt"] = "login"
        client = self._client(_States(log_in, self._callback), self._metadata())
        sent = {each: getattr(log_in, each) for each in ("state", "nonce", "code_verifier")}
        url: str = client.authorize_redirect(self._callback, **sent, **further).location
        return url

    def finish(self, log_in: ProviderLogIn) -> Person:
        """Return the person who has logged in; in the context of the callback's request.

        Raises:
            LogInRefusedError: ``provider_unavailable``, ``provider_refused``,
                ``provider_answer_invalid`` or ``not_fresh``.
        """
        metadata = self._metadata()
        self._require_issuer(metadata)
        client = self._client(_States(log_in, self._callback), metadata)
        try:
            token = client.authorize_access_token(
                claims_options={
                    "iss": {"essential": True, "value": self._settings.issuer},
                    "aud": {"essential": True, "value": self._settings.client_id},
                    "sub": {"essential": True},
                },
                leeway=self._skew,
            )
            _require_one_meaning(str(token["id_token"]))
            claims = dict(token["userinfo"])
            self._add_groups(client, claims, token)
        except ProviderError as refusal:
            raise LogInRefusedError("provider_refused", str(refusal.error)) from refusal
        except (FetchError, OAuthError, RequestException) as fault:
            raise LogInRefusedError("provider_unavailable", str(fault)) from fault
        except Exception as fault:  # the libraries raise whatever the answers lead to
            raise _invalid(f"{type(fault).__name__}: {fault}") from fault
        return self._person(claims, log_in)

    def _metadata(self) -> dict[str, Any]:
        url = f"{self._settings.issuer.rstrip('/')}{_METADATA}"
        try:
            found = parse_json_object(run(self._fetcher.fetch(url, access=_OPERATORS)))
            if found.get("issuer") != self._settings.issuer:
                raise _invalid("the issuer of the metadata")
            for name in _ENDPOINTS:
                split_url(str(found.get(name)), plain_http=self._outbound.plain_http)
        except UrlRefusedError as refused:
            raise _invalid(f"the metadata: {refused}") from refused
        except (FetchError, OAuthError) as fault:
            raise LogInRefusedError("provider_unavailable", str(fault)) from fault
        except TokenRefusedError as fault:
            raise _invalid("the metadata is not a JSON object") from fault
        return found

    def _client(self, states: "_States", metadata: Mapping[str, Any]) -> "_Client":
        named = _texts(metadata.get("id_token_signing_alg_values_supported"))
        algorithms = [each for each in named if each in _ALGORITHMS]
        return _Client(
            states,
            fetcher=self._fetcher,
            name="provider",
            client_id=self._settings.client_id,
            client_kwargs={
                "outbound": self._outbound,
                "scope": " ".join(self._settings.scopes),
                "code_challenge_method": "S256",
                "token_endpoint_auth_method": "ours",
            },
            client_auth_methods=[("ours", self._authenticate)],
            # Nothing else of the metadata: the library takes each member for an option.
            issuer=self._settings.issuer,
            id_token_signing_alg_values_supported=algorithms or [_DEFAULT_ALGORITHM],
            userinfo_endpoint=metadata.get("userinfo_endpoint"),
            **{name: metadata[name] for name in _ENDPOINTS},
        )

    def _require_issuer(self, metadata: Mapping[str, Any]) -> None:
        """Refuse an answer of another issuer (RFC 9207, 2.4), before the code is sent anywhere."""
        named = flask.request.args.getlist("iss")
        expected = metadata.get("authorization_response_iss_parameter_supported") is True
        if named != [self._settings.issuer] and (named or expected):
            raise _invalid("iss of the authorization response")

    def _add_groups(
        self, client: "_Client", claims: dict[str, Any], token: Mapping[str, Any]
    ) -> None:
        """Add what the ID token leaves to the UserInfo endpoint (OpenID Connect Core, 5.4)."""
        wanted = self._settings.groups_claim
        if _find_claim(claims, wanted) is not None:
            return
        if not client.server_metadata.get("userinfo_endpoint"):
            return
        found = client.userinfo(token=token)
        # OpenID Connect Core, 5.3.2: it may be about another person otherwise.
        if not hmac.compare_digest(str(found.get("sub")).encode(), str(claims["sub"]).encode()):
            raise ValueError("sub of the UserInfo response")
        claims[wanted] = _find_claim(found, wanted)
        for name in ("preferred_username", "email", "name"):
            if name in found:
                claims.setdefault(name, found[name])

    def _person(self, claims: Mapping[str, Any], log_in: ProviderLogIn) -> Person:
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAXIMUM_SUBJECT_CHARACTERS:
            raise _invalid("sub")
        return Person(
            name=_name_of(claims, subject),
            method="openid",
            issuer=self._settings.issuer,
            subject=subject,
            groups=self._groups(claims),
            amr=tuple(_texts(claims.get("amr"))),
            authenticated_at=self._authenticated_at(claims, log_in),
        )

    def _groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the groups of a person; of too many, those with a role come first."""
        groups = _texts(_find_claim(claims, self._settings.groups_claim))
        ordered = sorted(groups, key=lambda each: each not in self._settings.roles)
        return tuple(ordered[:_MAXIMUM_GROUPS])

    def _authenticated_at(
        self, claims: Mapping[str, Any], log_in: ProviderLogIn
    ) -> datetime | None:
        """Return when the person authenticated, as strongly as the settings ask for."""
        at, accepted = claims.get("auth_time"), self._settings.acr_values
        is_strong = not accepted or claims.get("acr") in accepted
        known = None
        if isinstance(at, int | float) and not isinstance(at, bool) and 0 <= at < _LATEST:
            known = float(at)
        if log_in.again:
            earliest = log_in.at - self._settings.max_age_seconds - self._skew
            if not is_strong or known is None or known < earliest:
                raise LogInRefusedError("not_fresh", "auth_time" if is_strong else "acr")
        if not is_strong or known is None:
            return None
        return datetime.fromtimestamp(min(known, self._clock().timestamp()), UTC)


class _States(FlaskIntegration):  # type: ignore[misc]
    """Has the state of one log-in from the caller, instead of from a cookie."""

    def __init__(self, log_in: ProviderLogIn, callback: str) -> None:
        super().__init__("provider")
        self._state = log_in.state
        self._data = {
            "redirect_uri": callback,
            "nonce": log_in.nonce,
            "code_verifier": log_in.code_verifier,
        }

    def get_state_data(self, _session: object, state: str | None) -> dict[str, Any] | None:
        """Return what the log-in began with; None for another ``state``."""
        same = hmac.compare_digest((state or "").encode(), self._state.encode())
        return self._data if same else None

    def set_state_data(self, _session: object, _state: str, _data: Mapping[str, Any]) -> None:
        """Do nothing: the browser keeps what the log-in began with, signed."""

    def clear_state_data(self, _session: object, _state: str | None) -> None:
        """Do nothing: the database keeps which log-ins have ended."""


class _Client(FlaskOAuth2App):  # type: ignore[misc]
    """Authlib's client, whose documents come from our cache and whose requests are bounded."""

    client_cls = ProviderSession

    def __init__(self, states: _States, *, fetcher: Fetcher, **options: Any) -> None:  # noqa: ANN401 - as inherited
        super().__init__(states, **options)
        self._fetcher = fetcher

    def fetch_jwk_set(self, force: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - as inherited
        """Return the keys of the provider that the library can read."""
        url = self.server_metadata["jwks_uri"]
        found = parse_json_object(run(self._fetcher.fetch(url, newer=force, access=_OPERATORS)))
        keys = found.get("keys")
        return {"keys": list(filter(_is_usable, keys if isinstance(keys, list) else ()))}

    def parse_id_token(self, *token: Any, **options: Any) -> Any:  # noqa: ANN401 - as inherited
        """Return the claims; look once more for a key that was replaced under its ``kid``."""
        try:
            return super().parse_id_token(*token, **options)
        except Exception:
            if self.fetch_jwk_set() == self.fetch_jwk_set(force=True):
                raise
            return super().parse_id_token(*token, **options)


def _is_usable(jwk: object) -> bool:
    """Return whether a key of a set can be read; another one is ignored (RFC 7517, 5)."""
    members: Mapping[str, Any] = jwk if isinstance(jwk, dict) else {}
    kty = members.get("kty")
    names = PUBLIC_MEMBERS.get(kty) if isinstance(kty, str) else None
    if names is None:
        return False
    try:
        # Its further members, such as an algorithm, are for the library.
        ForeignKey({name: members.get(name) for name in names})
    except KeysError:
        return False
    return True


def _require_one_meaning(id_token: str) -> None:
    """Refuse an ID token that the library could read in another way than others do.

    Raises:
        TokenRefusedError: its header or its payload has, for example, a member twice.
    """
    for segment in id_token.split(".")[:2]:
        parse_json_object(decode_segment(segment.encode()))


def _name_of(claims: Mapping[str, Any], subject: str) -> str:
    """Return the name in records: what people call the person, and ``sub``, which is unique."""
    given = next(
        (
            each
            for each in map(claims.get, ("preferred_username", "email", "name"))
            if isinstance(each, str) and each != subject
        ),
        "",
    )
    shown = "".join(each for each in given if each.isprintable())[:_MAXIMUM_NAME_CHARACTERS]
    unique = subject[:_SHOWN_SUBJECT_CHARACTERS]
    return f"{shown} ({unique})" if shown else unique


def _find_claim(claims: Mapping[str, Any], name: str) -> object:
    """Return the claim of a name, or of a path such as ``realm_access.roles``; None without one.

    The names of claims may have dots themselves, so that the whole name comes first.
    """
    if name in claims:
        return claims[name]
    value: object = claims
    for each in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(each)
    return value


def _texts(value: object) -> Sequence[str]:
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _invalid(detail: str) -> LogInRefusedError:
    return LogInRefusedError("provider_answer_invalid", detail)
