"""Settings of the management listener."""

from typing import Annotated

from msgspec import Meta

from authz_server.settings.constraints import Branch, refuse, require_address, require_url


class AdminSettings(Branch, frozen=True):
    """``[admin]``: the listener of the admin API, and its limits."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65_535)] = 8082
    public_url: str = ""
    tls_certificate: str = ""
    tls_private_key: str = ""
    requests_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] = 600

    @property
    def url(self) -> str:
        """The URL of the listener, as callers reach it."""
        scheme = "https" if self.tls_certificate else "http"
        return self.public_url or f"{scheme}://localhost:{self.port}"

    def __post_init__(self) -> None:
        require_address("host", self.host)
        if self.public_url:
            require_url("public_url", self.public_url)
        if bool(self.tls_certificate) != bool(self.tls_private_key):
            refuse("tls_certificate", "tls_certificate and tls_private_key belong together")
