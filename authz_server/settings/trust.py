"""Settings of client authentication, bound tokens and registration: one frozen struct a table."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from authz_server.settings.constraints import (
    Branch,
    refuse,
    refuse_every_address,
    require_networks,
    require_url,
)
from authz_server.settings.origins import is_origin

_NAME = re.compile(r"[a-z0-9_-]{1,40}")
_HOST = r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9])?(:[0-9]{1,5})?"
#: Plain http is possible for a test only, because outbound.plain_http is.
_ISSUER = re.compile(
    rf"https?://({_HOST}|\[[0-9a-f:]+\](:[0-9]{{1,5}})?)(/[!-~]*)?|spiffe://[a-z0-9._-]{{1,255}}"
)
#: A header's name; one with an underscore is confused with another by WSGI.
_HEADER = re.compile(r"[a-z0-9-]+")


ProofAlgorithm = Literal[
    "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA", "Ed25519", "RS256"
]


class DPoPSettings(Branch, frozen=True):
    """``[dpop]``: tokens that are bound to a key of the client (RFC 9449)."""

    enabled: bool = True
    algorithms: tuple[ProofAlgorithm, ...] = (
        "ES256",
        "ES384",
        "ES512",
        "PS256",
        "PS384",
        "PS512",
        "EdDSA",
        "Ed25519",
    )
    maximum_proof_age_seconds: Annotated[int, Meta(ge=5, le=600)] = 60
    nonce: Literal["off", "required"] = "off"
    nonce_lifetime_seconds: Annotated[int, Meta(ge=10, le=3_600)] = 120

    def __post_init__(self) -> None:
        if not self.algorithms:
            refuse("algorithms", "there is none", "Name one, or set dpop.enabled to false.")


AssertionAlgorithm = Literal[
    "ES256",
    "ES384",
    "ES512",
    "PS256",
    "PS384",
    "PS512",
    "EdDSA",
    "Ed25519",
    "RS256",
    "HS256",
    "HS384",
    "HS512",
]

ASSERTION_ALGORITHMS: tuple[str, ...] = get_args(AssertionAlgorithm)


class AssertionSettings(Branch, frozen=True):
    """``[assertions]``: clients that authenticate by a signed JWT (RFC 7523)."""

    algorithms: tuple[AssertionAlgorithm, ...] = (
        "ES256",
        "ES384",
        "ES512",
        "PS256",
        "PS384",
        "PS512",
        "EdDSA",
        "Ed25519",
        "HS256",
        "HS384",
        "HS512",
    )


class RegistrationSettings(Branch, frozen=True):
    """``[registration]``: dynamic registration of clients (RFC 7591, RFC 7592)."""

    enabled: bool = False
    software_statement_issuers: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    maximum_clients: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    secret_lifetime_days: Annotated[int, Meta(ge=0, le=3_650)] = 0
    requests_per_window: Annotated[int, Meta(ge=1, le=1_000_000)] = 60
    window_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 60


class ClientDocumentSettings(Branch, frozen=True):
    """``[client_id_documents]``: clients whose id is the address of their metadata."""

    allowed_origins: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    refused_client_ids: tuple[str, ...] = ()
    maximum_documents: Annotated[int, Meta(ge=1, le=100_000)] = 1_000

    def __post_init__(self) -> None:
        for origin in self.allowed_origins:
            if not is_origin(origin) or "*" in origin:
                refuse(
                    "allowed_origins",
                    f"{origin!r} is not an origin in lower case, with a port above 1023 or none",
                    "Write https://clients.example.org or https://clients.example.org:8443.",
                )


class OutboundSettings(Branch, frozen=True):
    """``[outbound]``: documents that are fetched from URLs of clients and issuers."""

    allowed_origins: tuple[str, ...] = ()
    allowed_networks: tuple[str, ...] = ()
    plain_http: bool = False
    ca_file: str = ""
    timeout_seconds: Annotated[int, Meta(ge=1, le=30)] = 5
    maximum_bytes: Annotated[int, Meta(ge=1_024, le=1_048_576)] = 65_536
    minimum_cache_seconds: Annotated[int, Meta(ge=1, le=3_600)] = 30
    default_cache_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 300
    maximum_cache_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 3_600
    keep_seconds: Annotated[int, Meta(ge=0, le=604_800)] = 21_600

    def __post_init__(self) -> None:
        require_networks("allowed_networks", self.allowed_networks)
        for position, origin in enumerate(self.allowed_origins):
            if not is_origin(origin):
                refuse(
                    f"allowed_origins[{position}]",
                    f"{origin!r} is not an origin in lower case, with a port above 1023 or none",
                    "Write https://keys.example.org or https://*.example.org:8443.",
                )
            if origin.startswith("http:") and not self.plain_http:
                refuse(f"allowed_origins[{position}]", f"{origin} is not an https origin")
        if self.minimum_cache_seconds > self.maximum_cache_seconds:
            refuse("minimum_cache_seconds", "must not exceed maximum_cache_seconds")


IssuerAlgorithm = Literal[
    "RS256", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA", "Ed25519"
]


class IssuerSettings(Branch, frozen=True):
    """``[issuers.NAME]``: a party whose tokens identify workloads or users."""

    issuer: str
    jwks_uri: str = ""
    jwks_file: str = ""
    algorithms: tuple[IssuerAlgorithm, ...] = ("RS256", "ES256", "ES384", "PS256", "EdDSA")
    audience: str = ""
    maximum_lifetime_seconds: Annotated[int, Meta(ge=10, le=31_622_400)] = 7_200
    maximum_age_seconds: Annotated[int, Meta(ge=0, le=31_622_400)] = 0
    ca_file: str = ""
    token_file: str = ""

    @property
    def is_spiffe(self) -> bool:
        """True for a SPIFFE trust domain, whose tokens need no ``iss``."""
        return self.issuer.startswith("spiffe://")

    def __post_init__(self) -> None:
        if not _ISSUER.fullmatch(self.issuer):
            refuse(
                "issuer",
                "must be an https URL with its host in lower case, or spiffe://TRUST-DOMAIN",
                "Write it exactly as the tokens have it as iss.",
            )
        if self.jwks_uri and self.jwks_file:
            refuse("jwks_uri", "jwks_uri and jwks_file exclude each other")
        if self.is_spiffe and not (self.jwks_uri or self.jwks_file):
            refuse("jwks_uri", "a SPIFFE trust domain needs the URL or file of its bundle")
        if not self.algorithms:
            refuse("algorithms", "there must be at least one")


def require_distinct_issuers(issuers: Mapping[str, IssuerSettings], own: str) -> None:
    """Refuse two names of one issuer, and an issuer that is this server."""
    names: dict[str, str] = {own: ""}
    for name, settings in issuers.items():
        if not _NAME.fullmatch(name):
            refuse("issuers", f"{name!r} is not 1 to 40 of a-z, 0-9, - and _")
        known = names.setdefault(settings.issuer, name)
        if known != name:
            whose = f"that of issuers.{known}" if known else "this server's own"
            refuse(f"issuers.{name}.issuer", f"the issuer is {whose}")


class ClientCertificateSettings(Branch, frozen=True):
    """``[client_certificates]``: where the TLS certificates of clients come from (RFC 8705)."""

    source: Literal["off", "listener", "client-cert", "nginx", "haproxy", "envoy"] = "off"
    proxies: tuple[str, ...] = ()
    certificate_header: str = ""
    verify_header: str = ""
    front_verifies: bool = False
    ca_file: str = ""
    mtls_base_url: str = ""

    @property
    def are_from_proxy(self) -> bool:
        """True if a header of a trusted proxy holds the certificate."""
        return self.source not in ("off", "listener")

    @property
    def can_be_verified(self) -> bool:
        """True if the source reports, or the server checks, that a chain was verified."""
        reported = self.source in ("listener", "nginx", "haproxy") or bool(self.verify_header)
        return self.source != "off" and (reported or self.front_verifies or bool(self.ca_file))

    def __post_init__(self) -> None:
        require_networks("proxies", self.proxies)
        refuse_every_address("proxies", self.proxies)
        for key in ("certificate_header", "verify_header"):
            if getattr(self, key) and not _HEADER.fullmatch(getattr(self, key)):
                refuse(key, "must be a header name in lower case without underscores")
        if self.source == "listener" and not self.ca_file:
            refuse("ca_file", "the listener needs the authorities that issue certificates")
        if self.mtls_base_url:
            require_url("mtls_base_url", self.mtls_base_url)
            if self.source == "off":
                refuse("mtls_base_url", "has no effect while client_certificates.source is off")
