"""Audit events: frozen values, one audit record each.

Events are msgspec structs rather than dataclasses because one is encoded for every token. An event
holds only ids and public facts: never a token, a secret, an assertion or a key. ``docs/events.md``
lists the events with their fields.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from authz_server.audit import chain_events, operator_events, server_events
from authz_server.audit.change_events import CHANGE_EVENTS
from authz_server.audit.event import Act as Act  # noqa: PLC0414 - exported
from authz_server.audit.event import Event as Event  # noqa: PLC0414 - exported
from authz_server.audit.server_events import ServerStarted as ServerStarted  # noqa: PLC0414
from authz_server.audit.server_events import ServerStopped as ServerStopped  # noqa: PLC0414
from authz_server.audit.server_events import SettingsLoaded as SettingsLoaded  # noqa: PLC0414


class TokenIssued(Event, frozen=True, kw_only=True, tag="token.issued"):
    """An access token was issued.

    Attributes:
        kid: the signing key's id; empty for a reference token.
        backend_request_id: the id of the signing request in the remote key backend's audit log;
            empty for a key in this process.
        expires_at: seconds since 1970-01-01 UTC, as in the token's ``exp``.
        confirmation: the token's ``cnf``, the thumbprints of the keys that it is bound to; null for
            a bearer token.
        authorization_details: the token's ``authorization_details``; absent without any.
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
    confirmation: Mapping[str, str] | None = None
    authorization_details: tuple[Mapping[str, Any], ...] | msgspec.UnsetType = msgspec.UNSET
    outcome: Literal["success"] = "success"


class TokenExchanged(Event, frozen=True, kw_only=True, tag="token.exchanged"):
    """A token was exchanged for another (RFC 8693), whose ``token.issued`` follows.

    Attributes:
        client_id: the client that asked.
        jti: the new token's id.
        subject: the ``sub`` of the subject token, and of the new token.
        subject_issuer: the subject token's ``iss``.
        subject_client_id: the client of the subject token; empty for one of another issuer.
        subject_jti: the subject token's id; empty if it has none.
        actor: the ``sub`` of the actor token; empty without one.
        actor_client_id: the client of the actor token.
        actor_jti: the actor token's id.
        act: the ``act`` of the new token; null for an impersonation.
    """

    client_id: str
    jti: str
    subject: str
    subject_issuer: str
    subject_client_id: str = ""
    subject_jti: str = ""
    actor: str = ""
    actor_client_id: str = ""
    actor_jti: str = ""
    act: Mapping[str, Any] | None = None
    outcome: Literal["success"] = "success"


class ClientRefused(Event, frozen=True, kw_only=True):
    """Base class of refusals of a client.

    Attributes:
        client_id: the client id in the request; unproven if authentication failed.
        error: the OAuth error code in the response.
        reason: the name of the reason or cause in ``authz_server.errors``.
        detail: further details, such as the refused scopes.
        count: the number of refusals that this record stands for.
    """

    client_id: str = ""
    error: str
    reason: str
    detail: str = ""
    count: int = 1
    outcome: Literal["refused"] = "refused"


class TokenRefused(ClientRefused, frozen=True, kw_only=True, tag="token.refused"):
    """A token request was refused."""


class IntrospectionRefused(ClientRefused, frozen=True, kw_only=True, tag="introspection.refused"):
    """An introspection request was refused; an inactive token is not a refusal."""


class RevocationRefused(ClientRefused, frozen=True, kw_only=True, tag="revocation.refused"):
    """A revocation request was refused."""


class RegistrationRefused(ClientRefused, frozen=True, kw_only=True, tag="registration.refused"):
    """A request to register a client, or to manage its registration, was refused."""


class EventPollRefused(ClientRefused, frozen=True, kw_only=True, tag="event_poll.refused"):
    """A poll for security events was refused."""


class RequestRefused(Event, frozen=True, kw_only=True, tag="request.refused"):
    """A message was refused before it reached an endpoint: malformed, too large or too slow.

    Attributes:
        error: the OAuth error code in the response.
        reason: the reason's name in ``authz_server.errors``.
        detail: further details.
        count: the number of refusals that this record stands for.
    """

    error: str
    reason: str
    detail: str = ""
    count: int = 1
    outcome: Literal["refused"] = "refused"


class TokenRevoking(Event, frozen=True, kw_only=True, tag="token.revoking"):
    """A token is about to be revoked; ``token.revoked`` follows once that is durable.

    Attributes:
        actor: the client itself.
        client_id: the client that the token was issued to.
    """

    actor: str
    client_id: str
    jti: str
    outcome: Literal["begun"] = "begun"


class TokenRevoked(Event, frozen=True, kw_only=True, tag="token.revoked"):
    """A token was durably revoked.

    Attributes:
        actor: the client itself, or an operator such as ``operator:ada via cli``.
        client_id: the client that the token was issued to.
    """

    actor: str
    client_id: str
    jti: str
    outcome: Literal["success"] = "success"


class CutOffRecorded(Act, frozen=True, kw_only=True, tag="cut_off.recorded"):
    """All tokens of a subject, or all tokens, issued before an instant were revoked.

    Attributes:
        kind: ``client``, ``key``, ``scope``, ``audience`` or ``all``.
        subject: the id of the client or key, a spelling of the scope, the identifier of the
            resource server (its SHA-256 if it has more than 200 characters); empty for ``all``.
        instant_microseconds: the instant, since 1970-01-01 UTC.
        reason: the operator's reason.
    """

    actor: str
    kind: str
    subject: str
    instant_microseconds: int
    reason: str = ""
    outcome: Literal["success"] = "success"


class ClientChanged(Act, frozen=True, kw_only=True, tag="client.changed"):
    """A client, a resource server or one of their credentials was changed.

    Attributes:
        action: the change, for example ``client.created`` or ``client.secret_added``.
    """

    actor: str
    action: str
    client_id: str
    outcome: Literal["success"] = "success"


class RegistrationChanged(Act, frozen=True, kw_only=True, tag="registration.changed"):
    """An initial access token was created or ended.

    Attributes:
        action: ``registration.token_created`` or ``registration.token_ended``.
        subject: the id of the initial access token.
    """

    actor: str
    action: str
    subject: str
    outcome: Literal["success"] = "success"


class ScopeChanged(Act, frozen=True, kw_only=True, tag="scope.changed"):
    """The scope catalogue was changed."""

    actor: str
    action: str
    scope: str
    outcome: Literal["success"] = "success"


class DeclarationApplied(Event, frozen=True, kw_only=True, tag="declaration.applied"):
    """Declarative files were applied; the records of their changes name the digest.

    Attributes:
        digest: the SHA-256 digest of the files, in hex.
        files: the paths of the files.
        added: the number of scopes, resource servers and clients that were added.
        changed: the number of those that were changed.
        removed: the number of those that were removed.
    """

    actor: str
    digest: str
    files: tuple[str, ...]
    added: int
    changed: int
    removed: int
    outcome: Literal["success"] = "success"


class StopSet(Act, frozen=True, kw_only=True, tag="stop.set"):
    """A scope, a client, a resource server or a programme was stopped.

    Attributes:
        kind: ``scope``, ``client``, ``resource-server`` or ``programme``.
        subject: the id or name of what was stopped.
        reason: the operator's reason.
        clients: the number of clients that could obtain its tokens.
        in_force: the known number of its tokens in force; null: no record of them is at hand.
    """

    actor: str
    kind: str
    subject: str
    reason: str
    clients: int
    in_force: int | None
    outcome: Literal["success"] = "success"


class StopLifted(Act, frozen=True, kw_only=True, tag="stop.lifted"):
    """A stop was lifted; the fields are those of :class:`StopSet`."""

    actor: str
    kind: str
    subject: str
    reason: str
    outcome: Literal["success"] = "success"


class KeyChanged(Act, frozen=True, kw_only=True, tag="key.changed"):
    """A signing key or its ring was changed.

    Attributes:
        action: the change, for example ``key.published``, ``key.revoked`` or ``ring.frozen``.
        ring: the key ring's name.
        kid: the key's id; empty for a change of the ring itself.
        reason: the reason.
        event_hash: the event's hash in the ring's hash chain.
    """

    actor: str
    action: str
    ring: str
    kid: str
    reason: str = ""
    event_hash: str = ""
    outcome: Literal["success"] = "success"


class SignatureMade(Event, frozen=True, kw_only=True, tag="signature.made"):
    """A remote key signed something other than a token; accounts for entries in its audit log.

    Attributes:
        purpose: the purpose of the signature: ``introspection``.
        kid: the signing key's id.
        backend_request_id: the id of the request in the remote key backend's audit log.
    """

    client_id: str
    purpose: str
    kid: str
    backend_request_id: str
    outcome: Literal["success"] = "success"


class SecretDue(Event, frozen=True, kw_only=True, tag="secret.due"):
    """A secret of a client or resource server ends soon; recorded once a day.

    Attributes:
        client_id: the client or resource server.
        credential_id: the secret's id.
        expires_at: its end, in seconds since 1970-01-01 UTC.
        days_left: the whole days until then.
    """

    client_id: str
    credential_id: str
    expires_at: int
    days_left: int
    outcome: Literal["alarm"] = "alarm"


class KeyAlarm(Event, frozen=True, kw_only=True, tag="key.alarm"):
    """A signing key, a ring or a key backend needs an operator's attention.

    Attributes:
        alarm: the kind of alarm, for example ``rotation.failed`` or ``backend.down``.
        subject: the ring, the key's id or the backend's address.
        detail: a description.
    """

    alarm: str
    subject: str
    detail: str = ""
    outcome: Literal["alarm"] = "alarm"


class TokenOfTaintedKey(Event, frozen=True, kw_only=True, tag="token.tainted"):
    """A token signed by a tainted key was presented, or one that was exchanged from it.

    It is recorded at most once a minute for each key.

    Attributes:
        client_id: the client that the token was issued to.
        jti: the token's id.
    """

    client_id: str
    jti: str
    kid: str
    outcome: Literal["alarm"] = "alarm"


class EventUndelivered(Event, frozen=True, kw_only=True, tag="security_event.undelivered"):
    """A security event was refused by its resource server, or not delivered in time.

    Attributes:
        resource_server_id: the recipient.
        security_event: the short name of the event.
        record_id: the id of the stored audit record that it is about.
        detail: why it was not delivered.
    """

    resource_server_id: str
    security_event: str
    record_id: int
    detail: str = ""
    outcome: Literal["alarm"] = "alarm"


#: Every event, in the order of ``docs/events.md``.
EVENTS: tuple[type[Event], ...] = (
    *(
        kind
        for kind in tuple(globals().values())
        if isinstance(kind, type)
        and issubclass(kind, Event)
        and kind.__module__ == __name__
        and "." in str(kind.__struct_config__.tag)
    ),
    *server_events.EVENTS,
    *operator_events.EVENTS,
    *CHANGE_EVENTS.values(),
    chain_events.AuditCheckpoint,
    chain_events.AuditContinued,
)
