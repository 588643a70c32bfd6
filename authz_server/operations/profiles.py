"""Check settings and registered clients against security profiles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from authz_server.assembly import Services
from authz_server.clients.authentication.shared_secret import SharedSecret
from authz_server.clients.models import Client
from authz_server.clients.properties import ClientProperties, read_properties
from authz_server.operations.clients import all_of_kind
from authz_server.settings.profiles import (
    FAPI2_ALGORITHMS,
    FAPI2_METHODS,
    Profile,
    find_breaches,
    requires_bound_tokens,
)
from keys.errors import KeysError
from keys.jose.foreign import parse_key_set

PROFILES: tuple[Profile, ...] = get_args(Profile)
_FAPI2_SOURCE = "FAPI 2.0, 5.3.2.1"


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule of a profile that is not met.

    Attributes:
        profile: the profile.
        level: ``must``, or ``should`` for a recommendation.
        subject: the path of a setting, or ``client ID``, or ``resource server ID``.
        problem: the rule that is not met, as a sentence.
        source: the section that states it.
    """

    profile: str
    level: str
    subject: str
    problem: str
    source: str


@dataclass(frozen=True, slots=True)
class ProfileReport:
    """The result of a check.

    Attributes:
        profiles: the profiles that were checked.
        checked: the number of clients and resource servers.
        findings: the rules that are not met.
    """

    profiles: tuple[str, ...]
    checked: int
    findings: tuple[Finding, ...]

    @property
    def is_met(self) -> bool:
        """True if no rule is broken; recommendations do not count."""
        return all(finding.level != "must" for finding in self.findings)


def check_profiles(services: Services, profiles: Sequence[Profile] = ()) -> ProfileReport:
    """Return the rules that the settings and the registrations do not meet.

    Args:
        services: the parts of the server.
        profiles: the profiles; if empty, those of the settings; if there are none, all.
    """
    chosen = tuple(profiles) or services.settings.profiles or PROFILES
    findings = [
        Finding(profile, "must", key, f"It {problem}.", source)
        for profile in chosen
        for key, problem, source in find_breaches(services.settings, profile)
    ]
    checked = 0
    with services.transaction() as session:
        for kind in ("client", "resource_server"):
            for client in all_of_kind(services, session, kind):
                checked += 1
                findings += (
                    each for profile in chosen for each in _check(services, client, profile)
                )
    return ProfileReport(chosen, checked, tuple(findings))


def _check(services: Services, client: Client, profile: Profile) -> Iterator[Finding]:
    subject = f"{client.kind.replace('_', ' ')} {client.id}"
    properties = read_properties(client.properties)
    for level, problem, source in _find_problems(services, client, properties, profile):
        yield Finding(profile, level, subject, problem, source)


def _find_problems(
    services: Services, client: Client, properties: ClientProperties, profile: Profile
) -> Iterator[tuple[str, str, str]]:
    """Yield level, problem and source of each rule that a registration does not meet."""
    method = client.authentication_method
    if profile == "fapi2":
        yield from _check_fapi2(services, client, properties)
    elif profile == "rfc9700":
        if method in SharedSecret.REGISTRATIONS:
            yield (
                "should",
                "It should authenticate by a key instead of a shared secret.",
                "RFC 9700, 2.5",
            )
        if client.kind == "client" and not _is_bound(properties):
            yield "should", "Its tokens should be bound to a key.", "RFC 9700, 2.2.1"
    elif client.kind == "client" and client.g2p_answer != "document":
        problem = 'Its g2p_answer must be "document".'
        yield "must", problem, "G2P Connect Authz 1.0"


def _check_fapi2(
    services: Services, client: Client, properties: ClientProperties
) -> Iterator[tuple[str, str, str]]:
    if client.authentication_method not in FAPI2_METHODS:
        problem = "It must authenticate by private_key_jwt or a TLS client certificate."
        yield "must", problem, _FAPI2_SOURCE
    algorithm = properties.token_endpoint_auth_signing_alg
    if algorithm and algorithm not in FAPI2_ALGORITHMS:
        yield "must", "It must sign assertions by PS256, ES256 or EdDSA.", "FAPI 2.0, 5.4.1"
    if client.authentication_method == "private_key_jwt" and not _has_fapi2_key(properties):
        yield "must", "A key of its jwks must sign by PS256, ES256 or EdDSA.", "FAPI 2.0, 5.4.1"
    settings = services.settings
    enforced = requires_bound_tokens(settings.profiles)
    if client.kind == "client":
        if not enforced and not _is_bound(properties):
            yield "must", "Its tokens must be bound to a key.", _FAPI2_SOURCE
        return
    server = client.resource_server
    ring = settings.keys.rings.get((server and server.signing_ring) or settings.keys.default_ring)
    if ring is not None and ring.algorithm not in FAPI2_ALGORITHMS:
        yield "must", "Its tokens must be signed by PS256, ES256 or EdDSA.", "FAPI 2.0, 5.4.1"


def _has_fapi2_key(properties: ClientProperties) -> bool:
    """Return whether a client can sign as the profile requires; keys at an address are not read."""
    if properties.jwks is None:
        return properties.jwks_uri is not None
    try:
        return not FAPI2_ALGORITHMS.isdisjoint(parse_key_set(properties.jwks).algorithms)
    except KeysError:
        return False


def _is_bound(properties: ClientProperties) -> bool:
    return (
        properties.dpop_bound_access_tokens or properties.tls_client_certificate_bound_access_tokens
    )
