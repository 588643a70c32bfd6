"""What can have happened: frozen values, each one audit record.

They are msgspec structs rather than dataclasses because one is encoded on the way of every token.
An event holds ids and public facts alone: never a token, a secret, an assertion or a key.
``docs/events.md`` lists each with its fields.
"""

from typing import Literal

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """The base of all events: which request it happened in, and where that came from.

    Attributes:
        request_id: the id that the answer carries too; empty outside a request.
        message_id: the sender's own id of the message, where it gave one.
        source_address: the sender's IP address, as seen behind the trusted proxies.
    """

    request_id: str = ""
    message_id: str = ""
    source_address: str = ""

    @property
    def name(self) -> str:
        """The event's name, for example ``token.issued``."""
        return str(self.__struct_config__.tag)


class TokenIssued(Event, frozen=True, kw_only=True, tag="token.issued"):
    """An access token was made.

    Attributes:
        kid: the signing key's id; empty for a reference token.
        backend_request_id: the id of the call that made the signature, as the audit log of the
            remote key backend has it; empty where the key is in this process.
        expires_at: seconds since 1970-01-01 UTC, as in the token's ``exp``.
    """

    client_id: str
    grant_type: str
    authentication_method: str
    scope: str
    audience: tuple[str, ...]
    jti: str
    kid: str
    backend_request_id: str = ""
    token_format: Literal["jwt", "reference"]
    expires_at: int
    outcome: Literal["success"] = "success"


class TokenRefused(Event, frozen=True, kw_only=True, tag="token.refused"):
    """A token request was refused.

    Attributes:
        client_id: as far as the request named one; not proven where authentication failed.
        error: the OAuth error code that was answered.
        reason: the name of the reason or cause in ``authz_server.errors``.
        detail: further words or names, such as the scopes that were refused.
        count: how many refusals this is the record of.
    """

    client_id: str = ""
    error: str
    reason: str
    detail: str = ""
    count: int = 1
    outcome: Literal["refused"] = "refused"


class IntrospectionRefused(Event, frozen=True, kw_only=True, tag="introspection.refused"):
    """An introspection request was refused; an inactive token is an answer, not a refusal."""

    client_id: str = ""
    error: str
    reason: str
    detail: str = ""
    count: int = 1
    outcome: Literal["refused"] = "refused"


class RevocationRefused(Event, frozen=True, kw_only=True, tag="revocation.refused"):
    """A revocation request was refused."""

    client_id: str = ""
    error: str
    reason: str
    detail: str = ""
    count: int = 1
    outcome: Literal["refused"] = "refused"


class RequestRefused(Event, frozen=True, kw_only=True, tag="request.refused"):
    """A message was refused before it reached an endpoint: it is malformed, too large or too slow.

    Attributes:
        error: the OAuth error code that was answered.
        reason: the reason's name in ``authz_server.errors``.
        detail: further words.
        count: how many refusals this is the record of.
    """

    error: str
    reason: str
    detail: str = ""
    count: int = 1
    outcome: Literal["refused"] = "refused"


class TokenRevoking(Event, frozen=True, kw_only=True, tag="token.revoking"):
    """One token is about to be revoked: ``token.revoked`` follows when that is durable.

    Attributes:
        actor: the client itself.
        client_id: the client that the token was issued to.
    """

    actor: str
    client_id: str
    jti: str
    outcome: Literal["begun"] = "begun"


class TokenRevoked(Event, frozen=True, kw_only=True, tag="token.revoked"):
    """One token was revoked, durably.

    Attributes:
        actor: the client itself, or ``operator:NAME``.
        client_id: the client that the token was issued to.
    """

    actor: str
    client_id: str
    jti: str
    outcome: Literal["success"] = "success"


class CutOffRecorded(Event, frozen=True, kw_only=True, tag="cut_off.recorded"):
    """All tokens of a client, a key, a scope, or all at all, issued before an instant were revoked.

    Attributes:
        kind: what is cut off: ``client``, ``key``, ``scope`` or ``all``.
        subject: its id; empty for ``all``.
        instant_microseconds: the instant, since 1970-01-01 UTC.
        reason: the operator's words.
    """

    actor: str
    kind: str
    subject: str
    instant_microseconds: int
    reason: str = ""
    outcome: Literal["success"] = "success"


class ClientChanged(Event, frozen=True, kw_only=True, tag="client.changed"):
    """A client, a resource server or one of their credentials was changed.

    Attributes:
        action: what was done, for example ``client.created`` or ``client.secret_added``.
    """

    actor: str
    action: str
    client_id: str
    outcome: Literal["success"] = "success"


class ScopeChanged(Event, frozen=True, kw_only=True, tag="scope.changed"):
    """The scope catalogue was changed."""

    actor: str
    action: str
    scope: str
    outcome: Literal["success"] = "success"


class KeyChanged(Event, frozen=True, kw_only=True, tag="key.changed"):
    """A signing key or its ring was changed.

    Attributes:
        action: what was done, for example ``key.published``, ``key.revoked`` or ``ring.frozen``.
        ring: the key ring's name.
        kid: the key's id; empty where the change is the ring's own.
        reason: why.
        event_hash: the event's hash in the ring's chain of events.
    """

    actor: str
    action: str
    ring: str
    kid: str
    reason: str = ""
    event_hash: str = ""
    outcome: Literal["success"] = "success"


class SignatureMade(Event, frozen=True, kw_only=True, tag="signature.made"):
    """A remote key signed something else than a token; so its audit log can be accounted for.

    Attributes:
        purpose: what was signed: ``introspection``.
        kid: the signing key's id.
        backend_request_id: the id of the call, as the audit log of the remote key backend has it.
    """

    client_id: str
    purpose: str
    kid: str
    backend_request_id: str
    outcome: Literal["success"] = "success"


class KeyAlarm(Event, frozen=True, kw_only=True, tag="key.alarm"):
    """An operator has to look at a signing key, a ring or a key backend.

    Attributes:
        alarm: what it is about, for example ``rotation.failed`` or ``backend.down``.
        subject: the ring, the key's id or the backend's address.
        detail: in words.
    """

    alarm: str
    subject: str
    detail: str = ""
    outcome: Literal["alarm"] = "alarm"


class TokenOfTaintedKey(Event, frozen=True, kw_only=True, tag="token.tainted"):
    """A token signed by a tainted key was presented; told at most once a minute for each key.

    Attributes:
        client_id: whom the token was issued to.
        jti: the token's id.
    """

    client_id: str
    jti: str
    kid: str
    outcome: Literal["alarm"] = "alarm"


class SettingsLoaded(Event, frozen=True, kw_only=True, tag="settings.loaded"):
    """A process read its settings file.

    Attributes:
        file: the path of the settings file.
        environment: ``production`` or ``development``.
        plugins: the names of the enabled plugins.
        problem: why they were refused; empty when they are in force.
    """

    file: str
    environment: str = ""
    issuer: str = ""
    plugins: tuple[str, ...] = ()
    problem: str = ""
    outcome: Literal["success", "refused"] = "success"


class ServerStarted(Event, frozen=True, kw_only=True, tag="server.started"):
    """A process began to serve."""

    version: str
    issuer: str
    process_id: int
    outcome: Literal["success"] = "success"


class ServerStopped(Event, frozen=True, kw_only=True, tag="server.stopped"):
    """A process ended in an orderly way."""

    process_id: int
    outcome: Literal["success"] = "success"


#: Every event, in the order of ``docs/events.md``.
EVENTS: tuple[type[Event], ...] = (
    TokenIssued,
    TokenRefused,
    IntrospectionRefused,
    RevocationRefused,
    RequestRefused,
    TokenRevoking,
    TokenRevoked,
    CutOffRecorded,
    ClientChanged,
    ScopeChanged,
    KeyChanged,
    SignatureMade,
    KeyAlarm,
    TokenOfTaintedKey,
    SettingsLoaded,
    ServerStarted,
    ServerStopped,
)
