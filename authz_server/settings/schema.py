"""Schema of the settings file: one frozen struct per table, with the rules between its fields.

The bounds of a number are in its type; :func:`authz_server.settings.load_settings` checks them. A
struct built with contradicting values raises ``RuleError``, a ``ValueError`` that names the key.
Import the structs from :mod:`authz_server.settings`.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from authz_server.settings.admin import AdminSettings
from authz_server.settings.approvals import ApprovalSettings
from authz_server.settings.constraints import (
    Branch,
    Secret,
    is_loopback,
    refuse,
    refuse_every_address,
    require_address,
    require_hosts,
    require_issuer,
    require_language,
    require_mount_prefix,
    require_networks,
    require_plugins,
    require_redis_url,
    require_within,
)
from authz_server.settings.database import DatabaseSettings
from authz_server.settings.keys import KeySettings
from authz_server.settings.profiles import Profile, find_breaches
from authz_server.settings.trust import (
    AssertionSettings,
    ClientCertificateSettings,
    ClientDocumentSettings,
    DPoPSettings,
    IssuerSettings,
    OutboundSettings,
    RegistrationSettings,
    require_distinct_issuers,
)

#: Destinations of audit records that are standard streams of the writing process, with their
#: descriptors.
STREAMS = {"stdout": 1, "stderr": 2}


class ServerSettings(Branch, frozen=True):
    """``[server]``: listeners and HTTP limits."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65_535)] = 8080
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    threads: Annotated[int, Meta(ge=1, le=1_024)] = 4
    mount_prefix: str = ""
    health_host: str = "127.0.0.1"
    health_port: Annotated[int, Meta(ge=1, le=65_535)] = 8081
    tls_certificate: str = ""
    tls_private_key: str = ""
    hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    forwarded_header: Literal["x-forwarded-for", "forwarded", "x-real-ip"] = "x-forwarded-for"
    maximum_body_bytes: Annotated[int, Meta(ge=1_024, le=1_048_576)] = 65_536
    maximum_value_bytes: Annotated[int, Meta(ge=256, le=1_048_576)] = 8_192
    maximum_parameters: Annotated[int, Meta(ge=8, le=1_000)] = 64
    backlog: Annotated[int, Meta(ge=1, le=65_535)] = 1_024
    maximum_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 4_096
    maximum_connections_per_address: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_024
    maximum_bodies_per_address: Annotated[int, Meta(ge=1, le=1_000_000)] = 64
    maximum_waiting_requests: Annotated[int, Meta(ge=1, le=100_000)] = 1_024
    header_timeout_seconds: Annotated[int, Meta(ge=1, le=300)] = 10
    body_timeout_seconds: Annotated[int, Meta(ge=1, le=300)] = 10
    keep_alive_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 620
    shutdown_grace_seconds: Annotated[int, Meta(ge=1, le=300)] = 10
    authorization_endpoint: bool = False
    retry_after_seconds: Annotated[int, Meta(ge=1, le=3_600)] = 2

    def __post_init__(self) -> None:
        require_address("host", self.host)
        require_address("health_host", self.health_host)
        require_mount_prefix(self.mount_prefix)
        require_hosts("hosts", self.hosts)
        require_networks("trusted_proxies", self.trusted_proxies)
        if self.maximum_value_bytes > self.maximum_body_bytes:
            refuse("maximum_value_bytes", "must not exceed maximum_body_bytes")
        if self.port == self.health_port:
            refuse("health_port", "the health listener needs a port of its own")
        if bool(self.tls_certificate) != bool(self.tls_private_key):
            refuse("tls_certificate", "tls_certificate and tls_private_key belong together")


class ClientSettings(Branch, frozen=True):
    """``[clients]``: storage of client credentials and throttling of failures."""

    secret_pepper: Secret
    failures_per_window: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    failure_window_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 60
    argon2_concurrency: Annotated[int, Meta(ge=1, le=64)] = 2
    throttle: Literal["memory", "database", "redis"] = "memory"
    redis_url: Secret | None = None
    secret_warning_days: Annotated[int, Meta(ge=0, le=366)] = 30

    def __post_init__(self) -> None:
        require_redis_url("redis_url", self.redis_url, needed=self.throttle == "redis")


#: Upper bound of every token lifetime, independent of present and former settings.
LONGEST_LIFETIME_SECONDS = 3_600


class TokenSettings(Branch, frozen=True):
    """``[tokens]``: lifetimes and scopes of access tokens."""

    default_lifetime_seconds: Annotated[int, Meta(ge=1, le=LONGEST_LIFETIME_SECONDS)] = 900
    maximum_lifetime_seconds: Annotated[int, Meta(ge=1, le=LONGEST_LIFETIME_SECONDS)] = 3_600
    clock_skew_seconds: Annotated[int, Meta(ge=0, le=60)] = 10
    scope_spelling: Literal["canonical", "requested"] = "canonical"
    several_resource_servers: Literal["refuse", "both"] = "refuse"
    maximum_scope_bytes: Annotated[int, Meta(ge=64, le=65_536)] = 4_096

    def __post_init__(self) -> None:
        if self.default_lifetime_seconds > self.maximum_lifetime_seconds:
            refuse("default_lifetime_seconds", "must not exceed maximum_lifetime_seconds")


class G2PSettings(Branch, frozen=True):
    """``[g2p]``: the G2P Connect profile at ``/oauth2/client/token``."""

    enabled: bool = True
    expires_in: Literal["string", "number"] = "string"
    token_type: str = "bearer"  # noqa: S105 - a token type, not a secret
    timestamp_required: bool = False
    timestamp_window_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 300
    maximum_message_id_bytes: Annotated[int, Meta(ge=1, le=1_024)] = 128
    default_language: str = "en"
    catalogue_directory: str = ""

    def __post_init__(self) -> None:
        require_language("default_language", self.default_language)
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,40}", self.token_type):
            refuse("token_type", "must be a word such as bearer")


#: How long a resource server may keep an active response.
MaximumAge = Annotated[int, Meta(ge=0, le=LONGEST_LIFETIME_SECONDS)]


class MaximumAgeSettings(Branch, frozen=True):
    """``[introspection.maximum_age_seconds]``: how long responses may be kept, by risk."""

    read: MaximumAge = 0
    write: MaximumAge = 0
    money: MaximumAge = 0


class IntrospectionSettings(Branch, frozen=True):
    """``[introspection]``: the introspection endpoints and their signed responses."""

    enabled: bool = True
    batch: bool = True
    signed_responses: bool = True
    signing_ring: str = ""
    client_names: bool = False
    maximum_age_seconds: MaximumAgeSettings = MaximumAgeSettings()


class RevocationSettings(Branch, frozen=True):
    """``[revocation]``: the revocation endpoint and the purge of expired rows."""

    enabled: bool = True
    sweep_interval_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 300
    sweep_batch_rows: Annotated[int, Meta(ge=1, le=10_000)] = 500


class StatusListSettings(Branch, frozen=True):
    """``[status_lists]``: the times of status lists (draft-ietf-oauth-status-list)."""

    ttl_seconds: Annotated[int, Meta(ge=1, le=3_600)] = 60
    lifetime_seconds: Annotated[int, Meta(ge=2, le=LONGEST_LIFETIME_SECONDS)] = 600
    period_seconds: Annotated[int, Meta(ge=60, le=3_600)] = 900

    def __post_init__(self) -> None:
        if self.lifetime_seconds < 2 * self.ttl_seconds:
            refuse("lifetime_seconds", "must be at least twice ttl_seconds")


class EventStreamSettings(Branch, frozen=True):
    """``[event_streams]``: the delivery of security events (RFC 8935, RFC 8936)."""

    keep_hours: Annotated[int, Meta(ge=1, le=720)] = 72
    poll_wait_seconds: Annotated[int, Meta(ge=0, le=60)] = 8


class AuditSettings(Branch, frozen=True):
    """``[audit]``: the destination of audit records, and how long stored ones are kept."""

    destination: str = "stderr"
    latest_change_file: str = "latest-change.json"
    keep_days: Annotated[int, Meta(ge=0, le=36_500)] = 400

    def __post_init__(self) -> None:
        if not self.destination:
            refuse("destination", 'must be "stderr", "stdout" or the path of a file')


class LoggingSettings(Branch, frozen=True):
    """``[logging]``: the operator's log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"
    access: bool = False


class PluginSettings(Branch, frozen=True):
    """``[plugins]``: the enabled plugins, and a table of settings for each."""

    enabled: tuple[str, ...] = ()
    timeout_seconds: Annotated[int, Meta(ge=1, le=60)] = 5
    settings: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        require_plugins(self.enabled, self.settings)


#: The role of a listener and its workers.
Role = Literal["public", "admin"]


class Settings(Branch, frozen=True, kw_only=True):
    """The whole settings file."""

    issuer: str
    environment: Literal["production", "development"] = "production"
    profiles: tuple[Profile, ...] = ()
    clients: ClientSettings
    keys: KeySettings
    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    tokens: TokenSettings = TokenSettings()
    assertions: AssertionSettings = AssertionSettings()
    dpop: DPoPSettings = DPoPSettings()
    g2p: G2PSettings = G2PSettings()
    introspection: IntrospectionSettings = IntrospectionSettings()
    revocation: RevocationSettings = RevocationSettings()
    status_lists: StatusListSettings = StatusListSettings()
    event_streams: EventStreamSettings = EventStreamSettings()
    registration: RegistrationSettings = RegistrationSettings()
    client_id_documents: ClientDocumentSettings = ClientDocumentSettings()
    client_certificates: ClientCertificateSettings = ClientCertificateSettings()
    outbound: OutboundSettings = OutboundSettings()
    issuers: dict[str, IssuerSettings] = msgspec.field(default_factory=dict)
    admin: AdminSettings = AdminSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    audit: AuditSettings = AuditSettings()
    logging: LoggingSettings = LoggingSettings()
    plugins: PluginSettings = PluginSettings()

    def __post_init__(self) -> None:
        development = self.environment == "development"
        issuer = require_issuer(self.issuer, plain_http_allowed=development)
        if self.server.mount_prefix not in ("", issuer.path):
            refuse(
                "server.mount_prefix",
                "must be the path of the issuer, or empty behind a proxy that strips it",
            )
        if self.revocation.enabled and not self.introspection.enabled:
            refuse("revocation.enabled", "without introspection a revocation has no effect")
        ring = self.introspection.signing_ring
        if ring and ring not in self.keys.rings:
            remedy = self.keys.remedy_for_ring(ring)
            refuse("introspection.signing_ring", f"there is no keys.rings.{ring}", remedy)
        if self.client_certificates.source != "off":
            self._require_certificate_source()
        if self.issuers:
            require_distinct_issuers(self.issuers, self.issuer)
        self._require_known_registrants()
        for profile in self.profiles:
            for breach in find_breaches(self, profile):
                refuse(breach.key, f"{breach.problem} (profile {profile}: {breach.source})")
        if self.admin.enabled and self.admin.port in {self.server.port, self.server.health_port}:
            refuse("admin.port", "the management listener needs a port of its own")
        if not development:
            self._require_production()

    def listeners(self) -> Mapping[Role, ServerSettings]:
        """Return the settings of each listener whose workers answer requests."""
        admin = self.admin
        found: dict[Role, ServerSettings] = {"public": self.server}
        if admin.enabled:
            found["admin"] = msgspec.structs.replace(
                self.server,
                host=admin.host,
                port=admin.port,
                workers=1,
                mount_prefix="",
                tls_certificate=admin.tls_certificate,
                tls_private_key=admin.tls_private_key,
            )
        return found

    def _require_known_registrants(self) -> None:
        for name in self.registration.software_statement_issuers.keys() - self.issuers.keys():
            refuse(f"registration.software_statement_issuers.{name}", f"there is no issuers.{name}")
        for origin in self.client_id_documents.allowed_origins:
            if origin.startswith("http:") and not self.outbound.plain_http:
                refuse("client_id_documents.allowed_origins", f"{origin} is not an https origin")

    def _require_certificate_source(self) -> None:
        certificates, server = self.client_certificates, self.server
        if certificates.source == "listener" and not server.tls_certificate:
            refuse("client_certificates.source", "the listener has no server.tls_certificate")
        if not certificates.are_from_proxy:
            return
        if not server.trusted_proxies:
            refuse("client_certificates.source", "there is no proxy in server.trusted_proxies")
        require_within("client_certificates.proxies", certificates.proxies, server.trusted_proxies)

    def _require_production(self) -> None:
        server = self.server
        if not (is_loopback(server.host) or server.tls_certificate or server.trusted_proxies):
            refuse(
                "server.host",
                "a listener that other machines can reach needs TLS or a trusted proxy in front",
                "Set server.tls_certificate, or name the proxy in server.trusted_proxies.",
            )
        admin = self.admin
        if admin.enabled and not (
            is_loopback(admin.host) or admin.tls_certificate or server.trusted_proxies
        ):
            refuse("admin.host", "a listener that other machines can reach needs TLS or a proxy")
        refuse_every_address("server.trusted_proxies", server.trusted_proxies)
        if self.logging.level == "debug":
            refuse("logging.level", "debug is for development only")
        if self.outbound.plain_http:
            refuse("outbound.plain_http", "plain http is for development only")
        if admin.openid.uses_plain_http:
            refuse("admin.openid.issuer", "plain http is for development only")
        self.keys.require_production()
