"""Clients and their secrets as operators see them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from authz_server.clients.models import Client, ClientSecret, is_live
from authz_server.clients.secrets import ARGON2_PREFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretView:
    """A secret as operators see it, without its value and its record.

    Attributes:
        imported: True if it was imported.
        works: True if it has not ended; one of another pepper is refused all the same.
        ends_at: the time at which it ends or ended; None: it does not end.
        last_used_at: the time of its last authentication, to about a minute; None: never.
        last_used_from: the IP address of the sender of that request.
        ends_when_unused_seconds: it ends when it has not been used for this time; None: it does
            not end so.
        pepper_fingerprint: the fingerprint of the pepper with which it was made; None: not known.
    """

    id: str
    description: str
    imported: bool
    works: bool
    created_at: datetime
    ends_at: datetime | None
    last_used_at: datetime | None
    last_used_from: str | None
    ends_when_unused_seconds: int | None
    pepper_fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientView:
    """A client as operators see it; the fields are those of the table ``client``.

    Attributes:
        state: ``enabled``, ``disabled``, ``expired`` or ``not yet``.
        properties: the optional properties that it has, by name.
        secrets: all secrets without their values, including ended ones.
    """

    id: str
    name: str
    organisation: str
    state: str
    authentication_method: str
    grant_types: tuple[str, ...]
    allowed_scopes: tuple[str, ...]
    default_scopes: tuple[str, ...]
    allowed_resource_servers: tuple[str, ...]
    permissions: tuple[str, ...]
    token_lifetime_seconds: int | None
    g2p_answer: str
    starts_at: datetime | None
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    properties: Mapping[str, Any]
    secrets: tuple[SecretView, ...]


def state_of(client: Client, now: datetime) -> str:
    """Return ``enabled``, ``disabled``, ``expired`` or ``not yet``."""
    if not client.enabled:
        return "disabled"
    if client.expires_at is not None and client.expires_at <= now:
        return "expired"
    if client.starts_at is not None and client.starts_at > now:
        return "not yet"
    return "enabled"


def describe_client(client: Client, now: datetime) -> ClientView:
    """Return the view of a stored client."""
    return ClientView(
        id=client.id,
        name=client.name,
        organisation=client.organisation,
        state=state_of(client, now),
        authentication_method=client.authentication_method,
        grant_types=tuple(client.grant_types),
        allowed_scopes=tuple(client.allowed_scopes),
        default_scopes=tuple(client.default_scopes),
        allowed_resource_servers=tuple(client.allowed_resource_servers),
        permissions=tuple(client.permissions),
        token_lifetime_seconds=client.token_lifetime_seconds,
        g2p_answer=client.g2p_answer,
        starts_at=client.starts_at,
        expires_at=client.expires_at,
        created_at=client.created_at,
        updated_at=client.updated_at,
        properties=dict(client.properties),
        secrets=tuple(describe_secret(secret, now) for secret in client.secrets),
    )


def describe_secret(secret: ClientSecret, now: datetime) -> SecretView:
    """Return the view of a stored secret."""
    ends = [end for end in (secret.ended_at, secret.expires_at) if end is not None]
    return SecretView(
        id=secret.id,
        description=secret.description,
        imported=secret.record.startswith(ARGON2_PREFIX),
        works=is_live(secret, now),
        created_at=secret.created_at,
        ends_at=min(ends, default=None),
        last_used_at=secret.last_used_at,
        last_used_from=secret.last_used_from,
        ends_when_unused_seconds=secret.ends_when_unused_seconds,
        pepper_fingerprint=secret.pepper_fingerprint,
    )
