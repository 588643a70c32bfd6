"""Registered issuers: parties whose tokens identify workloads or users.

Their tokens are signed JWTs: of Kubernetes service accounts, of SPIFFE, of GitHub and GitLab jobs,
or of any OpenID provider.
"""

import codecs
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from authz_server.clients.fetching import Access, Fetcher, FetchError
from authz_server.clients.key_sets import KeySets
from authz_server.clients.outbound import UrlRefusedError, split_url
from authz_server.settings import IssuerSettings
from keys.errors import KeysError, TokenRefusedError
from keys.jose.compact import parse_json_object
from keys.jose.foreign import (
    ForeignKeys,
    ForeignToken,
    parse_published_key_set,
)
from keys.jose.signatures import Verifier
from keys.jose.stand_ins import spend_one_verification
from keys.private_files import open_regular

logger = logging.getLogger(__name__)

#: The longest ``sub`` and ``jti``.
MAXIMUM_CHARACTERS = 512
#: SPIFFE, JWT-SVID, 4.1.1.
SPIFFE_KEY_USE = "jwt-svid"
_DISCOVERY_PATH = "/.well-known/openid-configuration"
#: The types that name no purpose; JWT-SVID, 2.2, permits JOSE.
GENERAL_TYPES = frozenset({"", "jwt", "jose"})
_SPIFFE_ID = re.compile(r"(spiffe://[a-z0-9._-]{1,255})((?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+)")


class Issuer:
    """One registered issuer.

    Args:
        name: its name in the settings.
        settings: its keys and the rules of its tokens.
        audience: the issuer of this server, the default audience.
        clock_skew_seconds: how far clocks may differ.
        fetcher: fetches its metadata and keys.
    """

    def __init__(
        self,
        name: str,
        settings: IssuerSettings,
        *,
        audience: str,
        clock_skew_seconds: int,
        fetcher: Fetcher,
    ) -> None:
        self.name = name
        self.settings = settings
        self.audience = settings.audience or audience
        self.names = (name, settings.issuer)
        self._skew = self.clock_skew_seconds = clock_skew_seconds
        self._fetcher = fetcher
        self._parse = parse_bundle if settings.is_spiffe else parse_published_key_set
        self._key_sets = KeySets(fetcher, self._parse)
        self._access = Access(
            trusted=True, ca_file=settings.ca_file, token_file=settings.token_file
        )
        self._metadata: tuple[bytes, str] = (b"", "")
        self._problem = ""
        self._file: tuple[tuple[int, int], ForeignKeys] | None = None

    def check(
        self, token: ForeignToken, claims: Mapping[str, Any], now: float, *, typ: str = ""
    ) -> None:
        """Check the header and the claims of a token, except for its audience.

        Args:
            token: the token.
            claims: its claims.
            now: seconds since 1970 UTC.
            typ: the ``typ`` of tokens for the purpose, besides those that name none.

        Raises:
            TokenRefusedError: a rule is broken; the reason is a cause of audit records.
        """
        if token.typ not in GENERAL_TYPES and token.typ != typ:
            raise TokenRefusedError("assertion_type")
        if token.header["alg"] not in self.settings.algorithms:
            raise TokenRefusedError("assertion_algorithm")
        subject, issuer = claims.get("sub"), claims.get("iss")
        if not is_text(subject) or ("iss" in claims and not is_text(issuer)):
            raise TokenRefusedError("assertion_malformed")
        if self.settings.is_spiffe:
            if trust_domain(subject) != self.settings.issuer:
                raise TokenRefusedError("assertion_issuer")
        elif issuer != self.settings.issuer:
            raise TokenRefusedError("assertion_issuer")
        self._check_times(claims, now)

    def last_use_at(self, claims: Mapping[str, Any]) -> float:
        """Return the end of the time in which a token is accepted (seconds since 1970)."""
        expires_at: int = claims["exp"]
        return expires_at + self._skew

    async def verify(self, token: ForeignToken) -> None:
        """Verify the signature of a token by the issuer's keys, at the cost of one verification.

        A key that replaces another one under its ``kid`` costs a second verification, once.

        Raises:
            TokenRefusedError: it is wrong, or no key fits; the reason is a cause of audit records.
        """
        alg, kid = token.header["alg"], token.header.get("kid")
        try:
            verifier = await self._find_verifier(kid, alg)
        except FetchError as error:
            self._note_problem(str(error))
            raise TokenRefusedError("assertion_keys_unavailable") from error
        self._problem = ""
        if verifier is None:
            spend_one_verification(alg, token.signature, token.signing_input)
            raise TokenRefusedError("assertion_key_unknown")
        if _is_signed(token, verifier):
            return
        newer = await self._find_replacement(kid, alg, verifier)
        if newer is None or not _is_signed(token, newer):
            raise TokenRefusedError("assertion_signature")

    def _note_problem(self, problem: str) -> None:
        """Log why there are no keys, once for the same cause."""
        if problem != self._problem:
            self._problem = problem
            logger.warning("there are no keys of the issuer %s: %s", self.name, problem)

    def _check_times(self, claims: Mapping[str, Any], now: float) -> None:
        times = [claims.get("exp"), *(claims[name] for name in ("iat", "nbf") if name in claims)]
        # A bool is an int; a fraction or an exponent is a float.
        if not all(type(time) is int and time >= 0 for time in times):
            raise TokenRefusedError("assertion_malformed")
        expires_at, skew, settings = claims["exp"], self._skew, self.settings
        if now >= expires_at + skew:
            raise TokenRefusedError("assertion_expired")
        if max(claims.get("iat", 0), claims.get("nbf", 0)) > now + skew:
            raise TokenRefusedError("assertion_not_yet_valid")
        issued_at = claims.get("iat", now - skew)
        if expires_at - issued_at > settings.maximum_lifetime_seconds + skew:
            raise TokenRefusedError("assertion_lifetime")
        limit = settings.maximum_age_seconds
        if limit and ("iat" not in claims or now - issued_at > limit + skew):
            raise TokenRefusedError("assertion_lifetime")

    async def _find_verifier(self, kid: str | None, alg: str) -> Verifier | None:
        if self.settings.jwks_file:
            return self._read_file().find(kid, alg)
        uri, access = await self._find_address()
        return await self._key_sets.find_published(uri, kid, alg, access=access)

    async def _find_replacement(
        self, kid: str | None, alg: str, refused: Verifier
    ) -> Verifier | None:
        """Return a newer key with the ``kid`` of one that refused a signature."""
        if self.settings.jwks_file:
            return None
        try:
            uri, access = await self._find_address()
        except FetchError:
            return None
        return await self._key_sets.find_replacement(uri, kid, alg, refused, access=access)

    async def _find_address(self) -> tuple[str, Access]:
        """Return the address of the keys, and what its fetch may use."""
        settings, access = self.settings, self._access
        if settings.jwks_uri:
            return settings.jwks_uri, access
        uri = await self._discover()
        if not _have_one_origin(uri, settings.issuer):
            # The issuer's token is for the issuer alone.
            access = access._replace(token_file="")
        return uri, access

    async def _discover(self) -> str:
        """Return the address of the keys in the issuer's metadata (OpenID Discovery 1.0, 4)."""
        url, access = self.settings.issuer.rstrip("/") + _DISCOVERY_PATH, self._access
        body = await self._fetcher.fetch(url, access=access)
        try:
            return self._read_metadata(body)
        except FetchError:
            # As a document without the key: it may have been mended.
            return self._read_metadata(await self._fetcher.fetch(url, newer=True, access=access))

    def _read_metadata(self, body: bytes) -> str:
        if body is not self._metadata[0]:
            try:
                members = parse_json_object(body)
            except TokenRefusedError:
                raise FetchError("the metadata is not a JSON object") from None
            uri = members.get("jwks_uri")
            if members.get("issuer") != self.settings.issuer or not isinstance(uri, str):
                raise FetchError("the metadata is not that of the issuer")
            self._metadata = body, uri
        return self._metadata[1]

    def _read_file(self) -> ForeignKeys:
        """Return the keys of the file, which is read again when it has changed."""
        path = Path(self.settings.jwks_file)
        try:
            status = path.stat()
            version = (status.st_mtime_ns, status.st_size)
            if self._file is None or self._file[0] != version:
                with open_regular(path) as file:
                    content = file.read().removeprefix(codecs.BOM_UTF8)
                self._file = version, self._parse(content)
        except (OSError, KeysError) as error:
            raise FetchError(f"{path.name} cannot be read: {error}") from error
        return self._file[1]


class RegisteredIssuers:
    """The issuers of the settings.

    Args:
        issuers: each issuer.
    """

    def __init__(self, issuers: list[Issuer]) -> None:
        self._by_issuer = {each.settings.issuer: each for each in issuers}

    def __len__(self) -> int:
        return len(self._by_issuer)

    def find(self, issuer: object) -> Issuer | None:
        """Return the issuer with this ``iss``; None if it is not registered."""
        return self._by_issuer.get(issuer) if isinstance(issuer, str) else None

    def is_registered(self, issuer: str) -> bool:
        """Return whether ``iss`` is that of a registered issuer."""
        return issuer in self._by_issuer


def trust_domain(subject: object) -> str:
    """Return the trust domain of a SPIFFE ID with a path, ``spiffe://...``; empty if it is none."""
    found = _SPIFFE_ID.fullmatch(subject) if isinstance(subject, str) else None
    return found[1] if found else ""


def parse_bundle(document: bytes) -> ForeignKeys:
    """Return the keys of a SPIFFE bundle that sign JWT-SVIDs.

    Raises:
        KeysError: it is not a JWK set.
    """
    try:
        keys = parse_json_object(document).get("keys")
    except TokenRefusedError:
        raise KeysError("the bundle is not a JSON object") from None
    if not isinstance(keys, list):
        raise KeysError('a bundle is an object with a list "keys"')
    of_tokens = [
        {name: value for name, value in key.items() if name != "use"}
        for key in keys
        if isinstance(key, dict) and key.get("use") == SPIFFE_KEY_USE
    ]
    return parse_published_key_set(json.dumps({"keys": of_tokens}).encode())


def is_text(value: object) -> bool:
    """Return whether a claim is a printable text of a usual length."""
    return isinstance(value, str) and 0 < len(value) <= MAXIMUM_CHARACTERS and value.isprintable()


def _is_signed(token: ForeignToken, verifier: Verifier) -> bool:
    """Return whether a signature is right, at the cost of one verification."""
    try:
        verifier(token.signature, token.signing_input)
    except TokenRefusedError as refusal:
        if not refusal.signature_checked:
            spend_one_verification(token.header["alg"], token.signature, token.signing_input)
        return False
    return True


def _have_one_origin(uri: str, issuer: str) -> bool:
    try:
        one, other = (split_url(each, plain_http=True) for each in (uri, issuer))
    except UrlRefusedError:
        return False
    return one.origin == other.origin
