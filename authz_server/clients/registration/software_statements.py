"""Software statements: client metadata that a registered issuer has signed (RFC 7591, 2.3)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from authz_server.clients.issuers import GENERAL_TYPES, Issuer, RegisteredIssuers
from authz_server.clients.registration.initial_tokens import CanonicalNames, Grantor
from authz_server.clients.registration.metadata import MEMBER_NAMES
from authz_server.clients.validation import DEFAULT_GRANT_TYPES
from authz_server.errors import OAuthError
from keys.errors import TokenRefusedError
from keys.jose.compact import parse_json_object
from keys.jose.foreign import ForeignToken, parse_foreign

MAXIMUM_STATEMENT_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class SoftwareStatement:
    """A verified software statement.

    Attributes:
        issuer: the name of its issuer in the settings.
        text: the JWT as presented.
        members: its claims that are client metadata; they take precedence over the request.
    """

    issuer: str
    text: str
    members: Mapping[str, Any]

    def apply_to(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata of a request with the statement's members in the place of its own.

        A translation, as in ``client_name#fr``, belongs to its member: the request adds none to a
        member that the statement has (RFC 7591, 3.1.1).
        """
        stated = set(map(_untranslated, self.members))
        others = {
            name: each for name, each in document.items() if _untranslated(name) not in stated
        }
        return {**others, **self.members}


def _untranslated(name: str) -> str:
    return name.partition("#")[0]


class SoftwareStatements:
    """Verifies software statements by the keys of registered issuers.

    Args:
        issuers: the registered issuers.
        permitted: the scopes that statements may give, by the name of an approved issuer.
        audience: the issuer of this server, the only ``aud`` of a statement that has one.
        clock: returns the present time, timezone-aware.
        find_canonical_names: finds scopes in the catalogue.
    """

    def __init__(
        self,
        issuers: RegisteredIssuers,
        permitted: Mapping[str, Iterable[str]],
        *,
        audience: str,
        clock: Callable[[], datetime],
        find_canonical_names: CanonicalNames,
    ) -> None:
        self._issuers = issuers
        self._permitted = permitted
        self._audience = audience
        self._clock = clock
        self._find_canonical_names = find_canonical_names

    async def verify(self, text: object) -> SoftwareStatement:
        """Return a statement whose issuer is approved and whose signature is right.

        A statement may be used for any number of clients, and needs no ``exp``.

        Raises:
            OAuthError: ``software_statement_invalid`` or ``software_statement_unapproved``.
        """
        token, claims = _parse(text)
        issuer = self._issuers.find(claims.get("iss"))
        if issuer is None or issuer.name not in self._permitted:
            raise OAuthError("software_statement_unapproved")
        self._check(issuer, token, claims)
        try:
            await issuer.verify(token)
        except TokenRefusedError as refusal:
            raise _invalid(refusal.reason) from None
        members = {
            name: value for name, value in claims.items() if _untranslated(name) in MEMBER_NAMES
        }
        if not members:
            # Another token of the issuer, for example of a workload, is not a statement.
            raise _invalid("no client metadata")
        return SoftwareStatement(issuer.name, str(text), members)

    def find_grantor(self, session: Session, statement: SoftwareStatement) -> Grantor:
        """Return what a statement permits: its own scopes, as far as its issuer may give them."""
        claimed = statement.members.get("scope")
        asked = claimed.split(" ") if isinstance(claimed, str) else []
        permitted = set(self._canonical(session, self._permitted[statement.issuer]))
        return Grantor(
            actor=f"issuer:{statement.issuer}",
            organisation="",
            scopes=tuple(name for name in self._canonical(session, asked) if name in permitted),
            grant_types=DEFAULT_GRANT_TYPES,
        )

    def _check(self, issuer: Issuer, token: ForeignToken, claims: Mapping[str, Any]) -> None:
        # An access token of the issuer may have a member that is client metadata, too: its scope.
        if token.typ not in GENERAL_TYPES:
            raise _invalid("assertion_type")
        if token.header["alg"] not in issuer.settings.algorithms:
            raise _invalid("assertion_algorithm")
        audience = claims.get("aud", self._audience)
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            raise _invalid("assertion_audience")
        times = [claims.get(name, 0) for name in ("iat", "nbf", "exp")]
        if not all(type(time) is int and time >= 0 for time in times):
            raise _invalid("assertion_malformed")
        now, skew = self._clock().timestamp(), issuer.clock_skew_seconds
        if max(times[:2]) > now + skew:
            raise _invalid("assertion_not_yet_valid")
        if "exp" in claims and now >= claims["exp"] + skew:
            raise _invalid("assertion_expired")

    def _canonical(self, session: Session, scopes: Iterable[str]) -> list[str]:
        names = self._find_canonical_names(session, scopes)
        return list(dict.fromkeys(names[scope] for scope in scopes if scope in names))


def _parse(text: object) -> tuple[ForeignToken, dict[str, Any]]:
    if not isinstance(text, str):
        raise _invalid("not a string")
    try:
        token = parse_foreign(text, MAXIMUM_STATEMENT_BYTES)
        return token, parse_json_object(token.payload)
    except TokenRefusedError as refusal:
        raise _invalid(refusal.reason) from None


def _invalid(problem: str) -> OAuthError:
    return OAuthError("software_statement_invalid", problem)
