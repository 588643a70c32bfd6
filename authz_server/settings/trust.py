"""Settings of client authentication, bound tokens and registration: one frozen struct a table."""

import re
from typing import Annotated, Literal

from msgspec import Meta

from authz_server.settings.constraints import (
    Branch,
    refuse,
    refuse_every_address,
    require_networks,
    require_url,
)

#: A header's name; one with an underscore is confused with another by WSGI.
_HEADER = re.compile(r"[a-z0-9-]+")


class DPoPSettings(Branch, frozen=True):
    """``[dpop]``: tokens that are bound to a key of the client (RFC 9449)."""

    enabled: bool = True
    maximum_proof_age_seconds: Annotated[int, Meta(ge=5, le=600)] = 60
    nonce: Literal["off", "required"] = "off"
    nonce_lifetime_seconds: Annotated[int, Meta(ge=10, le=3_600)] = 120


class RegistrationSettings(Branch, frozen=True):
    """``[registration]``: dynamic registration of clients (RFC 7591, RFC 7592)."""

    enabled: bool = False
    maximum_clients: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    secret_lifetime_days: Annotated[int, Meta(ge=0, le=3_650)] = 0
    requests_per_window: Annotated[int, Meta(ge=1, le=1_000_000)] = 60
    window_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 60


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
