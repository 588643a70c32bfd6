"""Settings of the management listener."""

import re
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from authz_server.settings.constraints import Branch, refuse, require_address, require_url
from authz_server.settings.operators import OpenIDSettings, SessionSettings

#: The permissions of administrators, by noun and verb.
Permission = Literal[
    "clients:read",
    "clients:write",
    "secrets:write",
    "scopes:read",
    "scopes:write",
    "resource-servers:read",
    "resource-servers:write",
    "tokens:revoke",
    "keys:read",
    "keys:rotate",
    "keys:revoke",
    "audit:read",
    "settings:read",
    "changes:read",
    "changes:approve",
    "operators:read",
    "operators:write",
]
PERMISSIONS: tuple[str, ...] = get_args(Permission)
#: The roles that this release ships, whose names the settings cannot take.
SHIPPED_ROLES = frozenset(
    {"auditor", "client-manager", "api-owner", "security-officer", "approver"}
)
_ROLE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class RoleSettings(Branch, frozen=True):
    """``[admin.roles.NAME]``: a role beside the shipped ones."""

    permissions: tuple[Permission, ...]


class AdminSettings(Branch, frozen=True):
    """``[admin]``: the listener of the admin API, and its limits."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65_535)] = 8082
    public_url: str = ""
    tls_certificate: str = ""
    tls_private_key: str = ""
    requests_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] = 600
    openid: OpenIDSettings = OpenIDSettings()
    sessions: SessionSettings = SessionSettings()
    roles: dict[str, RoleSettings] = msgspec.field(default_factory=dict)

    @property
    def url(self) -> str:
        """The URL of the listener, as callers reach it."""
        return self.public_url or self._local_url

    @property
    def _local_url(self) -> str:
        scheme = "https" if self.tls_certificate else "http"
        return f"{scheme}://localhost:{self.port}"

    def __post_init__(self) -> None:
        require_address("host", self.host)
        if self.public_url:
            instead = f"; leave it empty for {self._local_url}"
            require_url("public_url", self.public_url, instead)
        if bool(self.tls_certificate) != bool(self.tls_private_key):
            refuse("tls_certificate", "tls_certificate and tls_private_key belong together")
        for name in self.roles:
            if not _ROLE_NAME.fullmatch(name):
                refuse(f"roles.{name}", "a name here is up to 40 of a-z, 0-9 and -")
            if name in SHIPPED_ROLES:
                refuse(f"roles.{name}", "this role is shipped and has its own permissions")
