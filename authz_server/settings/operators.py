"""Settings of the people who administer: OpenID Connect log-in, and sessions."""

import re
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from authz_server.settings.constraints import Branch, Secret, is_loopback, refuse

_ISSUER = re.compile(r"https?://[a-z0-9._:\[\]-]+(/[!-~]*)?")
#: A sensitive act never follows a log-in that is older.
_LONGEST_FRESH_SECONDS = 300


class GroupRole(Branch, frozen=True):
    """A role of a group, for a part of the server alone."""

    role: str
    resource_servers: tuple[str, ...] = ()
    organisations: tuple[str, ...] = ()


class OpenIDSettings(Branch, frozen=True):
    """``[admin.openid]``: the OpenID Connect provider at which operators log in."""

    issuer: str = ""
    client_id: str = ""
    client_secret: Secret | None = None
    private_key: Secret | None = None
    scopes: tuple[str, ...] = ("openid", "profile")
    groups_claim: str = "groups"
    roles: dict[str, tuple[str | GroupRole, ...]] = msgspec.field(default_factory=dict)
    acr_values: tuple[str, ...] = ()
    max_age_seconds: Annotated[int, Meta(ge=0, le=_LONGEST_FRESH_SECONDS)] = 0

    def __post_init__(self) -> None:
        if not self.issuer:
            return
        parts = urlsplit(self.issuer)
        is_plain = parts.scheme == "http"
        if not _ISSUER.fullmatch(self.issuer) or (
            is_plain and not is_loopback(parts.hostname or "")
        ):
            refuse(
                "issuer",
                "must be an https URL with its host in lower case",
                "Write it exactly as the provider's metadata has it.",
            )
        if not self.client_id:
            refuse("client_id", "must be set for a provider")
        if (self.client_secret is None) == (self.private_key is None):
            refuse("client_secret", "a provider needs client_secret or private_key, not both")
        if "openid" not in self.scopes:
            refuse("scopes", "openid must be one of them")

    @property
    def uses_plain_http(self) -> bool:
        """True for a provider without TLS, which is on loopback."""
        return self.issuer.startswith("http:")


class SessionSettings(Branch, frozen=True):
    """``[admin.sessions]``: how long operators stay logged in."""

    idle_seconds: Annotated[int, Meta(ge=60, le=86_400)] = 900
    absolute_seconds: Annotated[int, Meta(ge=60, le=86_400)] = 28_800
    fresh_seconds: Annotated[int, Meta(ge=10, le=_LONGEST_FRESH_SECONDS)] = 300

    def __post_init__(self) -> None:
        if self.idle_seconds > self.absolute_seconds:
            refuse("idle_seconds", "must not exceed absolute_seconds")
