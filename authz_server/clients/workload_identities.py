"""The tokens of registered issuers that a client is registered for: of workloads, and of users."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from authz_server.errors import InvalidChangeError

MAXIMUM_IDENTITIES = 50
MAXIMUM_SUBJECT_CHARACTERS = 512
#: Stands for one whole segment of a subject, which ends at "/" or ":".
ANY_SEGMENT = "*"
#: At the end of a subject: stands for one segment or more.
ANY_SEGMENTS = "**"

_SEPARATORS = re.compile(r"([/:])")
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}/.+")

_Text = Annotated[str, Meta(min_length=1, max_length=MAXIMUM_SUBJECT_CHARACTERS)]


class WorkloadIdentity(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Tokens of a registered issuer that identify a workload or another subject.

    Attributes:
        issuer: the issuer's name in the settings, or its ``iss``.
        subject: the ``sub``, or a pattern: see :func:`require_pattern`.
        audience: the only ``aud``; empty: the one of the issuer's settings.
        claims: the values of further claims. An object has to have these members at least, a list
            names the permitted values, and a text may be a pattern.
    """

    issuer: _Text
    subject: _Text
    audience: Annotated[str, Meta(max_length=MAXIMUM_SUBJECT_CHARACTERS)] = ""
    claims: dict[str, Any] = {}

    def fits(self, claims: Mapping[str, Any], audience: str) -> bool:
        """Return whether claims of the issuer identify the subject.

        Args:
            claims: the claims of a token of that issuer, with a text as ``sub``.
            audience: the audience of the issuer's settings.
        """
        expected = self.audience or audience
        return (
            claims.get("aud") in (expected, [expected])
            and matches(self.subject, claims["sub"])
            and _includes(claims, self.claims)
        )


def matches(pattern: str, text: str) -> bool:
    """Return whether a text is the pattern itself, or fits its wildcards."""
    if ANY_SEGMENT not in pattern:
        return pattern == text
    return _compile(pattern).fullmatch(text) is not None


@lru_cache(maxsize=4_096)
def _compile(pattern: str) -> re.Pattern[str]:
    parts = {ANY_SEGMENT: "[^/:]+", ANY_SEGMENTS: ".+"}
    return re.compile(
        "".join(parts.get(part, re.escape(part)) for part in _SEPARATORS.split(pattern)), re.DOTALL
    )


def require_pattern(field: str, pattern: str) -> str:
    """Require a subject, or a pattern of one.

    A subject consists of segments that end at ``/`` or ``:``. In a pattern, ``*`` stands for one
    whole segment, and ``**`` at the end for one or more. The first segment, and the trust domain
    of a SPIFFE ID, are never patterns.

    Raises:
        InvalidChangeError: it is neither.
    """
    parts = _SEPARATORS.split(pattern)
    segments = parts[::2]
    *before, last = segments
    is_pattern = ANY_SEGMENT in pattern
    whole = all(ANY_SEGMENT not in each or each == ANY_SEGMENT for each in before)
    ends = ANY_SEGMENT not in last or last in (ANY_SEGMENT, ANY_SEGMENTS)
    if not pattern.isprintable() or not whole or not ends or ANY_SEGMENT in segments[0]:
        raise InvalidChangeError(
            f"{field}: {pattern!r} is neither a subject nor a pattern: * stands for a "
            "whole segment after the first, and ** for the last ones"
        )
    if is_pattern and pattern.startswith("spiffe:") and not _SPIFFE.fullmatch(pattern):
        raise InvalidChangeError(f"{field}: {pattern!r} does not name its trust domain")
    return pattern


def check_identities(field: str, value: object) -> object:
    """Require a list of identities with usable subjects.

    Args:
        field: the name of the property.
        value: its value.

    Raises:
        InvalidChangeError: it is none.
    """
    try:
        identities = msgspec.convert(value, tuple[WorkloadIdentity, ...])
    except msgspec.ValidationError as error:
        raise InvalidChangeError(f"{field}: {error}") from error
    if len(identities) > MAXIMUM_IDENTITIES:
        raise InvalidChangeError(f"{field}: use at most {MAXIMUM_IDENTITIES}")
    for identity in identities:
        require_pattern(field, identity.subject)
    return msgspec.to_builtins(identities)


def _includes(actual: object, expected: object) -> bool:
    """Return whether a claim has an expected value, recursively."""
    if isinstance(expected, Mapping):
        return isinstance(actual, Mapping) and all(
            name in actual and _includes(actual[name], value) for name, value in expected.items()
        )
    if isinstance(expected, list):
        return any(_includes(actual, each) for each in expected)
    if isinstance(expected, str):
        return isinstance(actual, str) and matches(expected, actual)
    return type(actual) is type(expected) and actual == expected


class WorkloadIndex:
    """Finds the clients of a subject, among all clients with workload identities."""

    def __init__(self) -> None:
        self._of_client: dict[str, tuple[WorkloadIdentity, ...]] = {}
        self._exact: dict[tuple[str, str], set[str]] = {}
        self._patterns: dict[str, set[str]] = {}

    def replace(self, client_id: str, identities: tuple[WorkloadIdentity, ...]) -> None:
        """Set the identities of a client; none removes it."""
        for identity in self._of_client.pop(client_id, ()):
            self._place_of(identity).discard(client_id)
        if identities:
            self._of_client[client_id] = identities
        for identity in identities:
            self._place_of(identity).add(client_id)

    def find(
        self, issuers: Iterable[str], claims: Mapping[str, Any], audience: str
    ) -> Sequence[str]:
        """Return the ids of the clients whose identities the claims fit.

        Args:
            issuers: the names of the issuer.
            claims: the claims of a token, with a text as ``sub``.
            audience: the audience of the issuer's settings.
        """
        names = tuple(issuers)
        candidates: set[str] = set()
        for name in names:
            candidates |= self._exact.get((name, claims["sub"]), set())
            candidates |= self._patterns.get(name, set())
        return sorted(
            client_id
            for client_id in candidates
            if any(
                identity.issuer in names and identity.fits(claims, audience)
                for identity in self._of_client.get(client_id, ())
            )
        )

    def _place_of(self, identity: WorkloadIdentity) -> set[str]:
        if ANY_SEGMENT in identity.subject:
            return self._patterns.setdefault(identity.issuer, set())
        return self._exact.setdefault((identity.issuer, identity.subject), set())
