"""Security profiles: rules beyond the defaults that a server follows when they are enabled.

A profile narrows what the server accepts where that is safe, such as methods and algorithms. Where
a setting contradicts it, the settings are refused. :mod:`authz_server.operations.profiles` checks
registered clients.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from authz_server.settings.schema import Settings

Profile = Literal["fapi2", "g2p-connect", "rfc9700"]

#: FAPI 2.0 Security Profile, 5.4.1; Ed25519 is RFC 9864's name of EdDSA with that curve.
FAPI2_ALGORITHMS = frozenset({"PS256", "ES256", "EdDSA", "Ed25519"})
#: FAPI 2.0 Security Profile, 5.3.2.1: mutual TLS or private_key_jwt.
FAPI2_METHODS = frozenset({"private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth"})

#: FAPI 2.0 Security Profile, 5.3.2.1: JWTs from so far ahead are accepted.
FAPI2_SKEW_SECONDS = 10


class Breach(NamedTuple):
    """A setting that contradicts a profile.

    Attributes:
        key: the path of the setting.
        problem: the contradiction, after the key in a sentence.
        source: the section that states the rule.
    """

    key: str
    problem: str
    source: str


def permitted_algorithms(profiles: Collection[str], algorithms: Iterable[str]) -> tuple[str, ...]:
    """Return the signature algorithms of clients that the profiles permit, in the given order."""
    if "fapi2" not in profiles:
        return tuple(algorithms)
    return tuple(each for each in algorithms if each in FAPI2_ALGORITHMS)


def permits_method(profiles: Collection[str], name: str) -> bool:
    """Return whether the profiles permit a client authentication method."""
    return "fapi2" not in profiles or name in FAPI2_METHODS


def requires_text_audience(profiles: Collection[str]) -> bool:
    """Return whether the audience of an assertion has to be a string (FAPI 2.0, 5.3.2.1)."""
    return "fapi2" in profiles


def requires_bound_tokens(profiles: Collection[str]) -> bool:
    """Return whether every token has to be bound to a key of its client."""
    return "fapi2" in profiles


def find_breaches(settings: "Settings", profile: Profile) -> Iterator[Breach]:
    """Return the settings that contradict a profile, whether or not it is enabled."""
    yield from _BREACHES[profile](settings)


def _fapi2(settings: "Settings") -> Iterator[Breach]:
    if not settings.issuer.startswith("https:"):
        yield Breach("issuer", "must be an https URL", "FAPI 2.0, 5.2.1")
    name = settings.keys.default_ring
    if settings.keys.rings[name].algorithm not in FAPI2_ALGORITHMS:
        key = f"keys.rings.{name}.algorithm"
        yield Breach(key, "must be PS256, ES256 or EdDSA", "FAPI 2.0, 5.4.1")
    if "RS256" in settings.assertions.algorithms:
        yield Breach("assertions.algorithms", "must not contain RS256", "FAPI 2.0, 5.4.1")
    if settings.client_certificates.source == "off":
        yield from _fapi2_without_certificates(settings)
    if settings.tokens.clock_skew_seconds < FAPI2_SKEW_SECONDS:
        key = "tokens.clock_skew_seconds"
        yield Breach(key, f"must be at least {FAPI2_SKEW_SECONDS}", "FAPI 2.0, 5.3.2.1")
    for name, issuer in settings.issuers.items():
        if FAPI2_ALGORITHMS.isdisjoint(issuer.algorithms):
            key = f"issuers.{name}.algorithms"
            yield Breach(key, "must contain PS256, ES256 or EdDSA", "FAPI 2.0, 5.4.1")


def _fapi2_without_certificates(settings: "Settings") -> Iterator[Breach]:
    dpop = settings.dpop
    further = "or client_certificates.source be set"
    if FAPI2_ALGORITHMS.isdisjoint(settings.assertions.algorithms):
        problem = f"must contain PS256, ES256 or EdDSA, {further}, so that clients can authenticate"
        yield Breach("assertions.algorithms", problem, "FAPI 2.0, 5.3.2.1")
    if not dpop.enabled:
        problem = f"must be true, {further}, so that tokens can be bound"
        yield Breach("dpop.enabled", problem, "FAPI 2.0, 5.3.2.1")
    elif FAPI2_ALGORITHMS.isdisjoint(dpop.algorithms):
        problem = f"must contain PS256, ES256 or EdDSA, {further}, so that tokens can be bound"
        yield Breach("dpop.algorithms", problem, "FAPI 2.0, 5.3.2.1")


def _g2p_connect(settings: "Settings") -> Iterator[Breach]:
    source = "G2P Connect Authz 1.0"
    g2p = settings.g2p
    if not g2p.enabled:
        yield Breach("g2p.enabled", "must be true", source)
    if not g2p.timestamp_required:
        yield Breach("g2p.timestamp_required", "must be true", source)
    if g2p.expires_in != "string":
        yield Breach("g2p.expires_in", 'must be "string"', source)
    if g2p.token_type != "bearer":  # noqa: S105 - a token type, not a secret
        yield Breach("g2p.token_type", 'must be "bearer"', source)


def _rfc9700(settings: "Settings") -> Iterator[Breach]:
    if not settings.issuer.startswith("https:"):
        yield Breach("issuer", "must be an https URL", "RFC 9700, 2.6")
    if settings.environment != "production":
        yield Breach("environment", 'must be "production"', "RFC 9700, 2.6")
    if settings.tokens.several_resource_servers == "both":
        key = "tokens.several_resource_servers"
        yield Breach(key, 'must be "refuse": a token is for one resource server', "RFC 9700, 2.3")


_BREACHES: dict[Profile, Callable[["Settings"], Iterator[Breach]]] = {
    "fapi2": _fapi2,
    "g2p-connect": _g2p_connect,
    "rfc9700": _rfc9700,
}
