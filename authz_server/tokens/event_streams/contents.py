"""Security events by what the audit records of changes state (RFC 8417)."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.audit.models import AuditRecord
from authz_server.audit.stored_rows import UNREADABLE_FACT, read_records
from authz_server.clients.cache import ClientCache, ClientEntry
from authz_server.scopes.catalogue import ScopeCatalogue
from authz_server.tokens.models import Programme

#: The types of events by their short names, which a stream may be limited to.
EVENT_TYPES = {
    "token-revoked": "https://schemas.openid.net/secevent/oauth/event-type/token-revoked",
    "tokens-revoked": "https://schemas.openid.net/secevent/oauth/event-type/tokens-revoked",
    "client-disabled": "https://schemas.openid.net/secevent/risc/event-type/account-disabled",
    "client-enabled": "https://schemas.openid.net/secevent/risc/event-type/account-enabled",
    "client-deleted": "https://schemas.openid.net/secevent/risc/event-type/account-purged",
    "secret-ended": "https://schemas.openid.net/secevent/caep/event-type/credential-change",
    "key-compromised": "https://schemas.openid.net/secevent/risc/event-type/credential-compromise",
    "stopped": "urn:authz-server:secevent:stopped",
    "resumed": "urn:authz-server:secevent:resumed",
}
EVENT_NAMES = tuple(EVENT_TYPES)

_OF_CLIENTS = {
    "client.disabled": "client-disabled",
    "client.enabled": "client-enabled",
    "client.deleted": "client-deleted",
    "client.secret_ended": "secret-ended",
}
#: Changes of a client; their details state its scopes.
_CHANGES = (
    "client.created",
    "client.registered",
    "client.updated",
    "client.registration_updated",
    "client.deleted",
)
#: Changes of a scope; their details state its resource server.
_OWNERS = ("scope.added", "scope.assigned", "scope.deleted")
#: What concerns several resource servers, so that the reason may name what one must not know.
_WITHOUT_REASON = frozenset({"programme", "key", "all", "audience"})
_OF_STOPS = {"stop.set": "stopped", "stop.lifted": "resumed"}
_HASH_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """An event for one resource server.

    Attributes:
        name: its short name.
        subject: the ``sub_id`` (RFC 9493).
        facts: the value of its member of ``events``.
    """

    name: str
    subject: dict[str, str]
    facts: dict[str, Any]


class EventContents:
    """Makes the events of resource servers from audit records.

    Args:
        issuer: the identifier of this server.
        directory: clients and resource servers.
        catalogue: scopes.
    """

    def __init__(self, issuer: str, directory: ClientCache, catalogue: ScopeCatalogue) -> None:
        self._issuer = issuer
        self._directory = directory
        self._catalogue = catalogue

    def find(self, session: Session, record: AuditRecord, server_id: str) -> SecurityEvent | None:
        """Return the event of a record for a resource server; None: it does not concern it."""
        event = self.describe(record)
        return event if event is not None and self._concerns(session, record, server_id) else None

    def describe(self, record: AuditRecord) -> SecurityEvent | None:
        """Return the event of a record for any resource server; None: it is not one."""
        action = record.action
        if action == "token.revoked":
            return self._of_token(record)
        if action in _OF_CLIENTS:
            return self._of_client(record)
        if action == "cut_off.recorded" or action in _OF_STOPS:
            return self._of_several(record)
        return self._of_key(record) if action == "key.revoked" else None

    def claims(self, record: AuditRecord, event: SecurityEvent, server_id: str) -> dict[str, Any]:
        """Return the claims of a security event token, the same at each attempt but for ``iat``."""
        at = int(record.at.timestamp())
        return {
            "iss": self._issuer,
            "iat": at,
            "jti": self.jti(record.id, server_id),
            "aud": self.audience(server_id),
            "txn": str(record.id),
            "toe": at,
            "sub_id": event.subject,
            "events": {EVENT_TYPES[event.name]: {"event_timestamp": at, **event.facts}},
        }

    def jti(self, record_id: int, server_id: str) -> str:
        """Return the id of the event of a record for a resource server."""
        text = f"{self._issuer}\n{server_id}\n{record_id}"
        return f"{record_id}-{hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARACTERS]}"

    def audience(self, server_id: str) -> str:
        """Return the identifier of a resource server, or its id if it is deleted."""
        found = self._directory.find(server_id)
        own = found.resource_server if found is not None else None
        return own.identifier if own is not None else server_id

    def _of_token(self, record: AuditRecord) -> SecurityEvent:
        client_id = str(record.detail.get("client_id", ""))
        subject = {"format": "jwt_id", "iss": self._issuer, "jti": record.subject}
        facts = {"client_id": client_id} if client_id else {}
        return SecurityEvent("token-revoked", subject, facts)

    def _of_client(self, record: AuditRecord) -> SecurityEvent:
        facts: dict[str, Any] = {}
        if record.action == "client.secret_ended":
            facts = {"credential_type": "client_secret", "change_type": "revoke"}
        return SecurityEvent(_OF_CLIENTS[record.action], self._client(record.subject), facts)

    def _of_several(self, record: AuditRecord) -> SecurityEvent:
        kind, _, name = record.subject.partition(":")
        facts: dict[str, Any] = {"kind": kind, "subject": name}
        instant = record.detail.get("instant_microseconds")
        if isinstance(instant, int):
            facts["issued_until"] = instant // 1_000_000
        reason = record.detail.get("reason")
        if reason and kind not in _WITHOUT_REASON:
            facts["reason_admin"] = {"en": str(reason)}
        subject = self._client(name) if kind == "client" else self._named(f"{kind}:{name}")
        return SecurityEvent(_OF_STOPS.get(record.action, "tokens-revoked"), subject, facts)

    def _of_key(self, record: AuditRecord) -> SecurityEvent:
        facts = {"credential_type": "signing_key", "kid": record.subject}
        return SecurityEvent("key-compromised", self._named(f"key:{record.subject}"), facts)

    def _concerns(self, session: Session, record: AuditRecord, server_id: str) -> bool:
        if record.action == "key.revoked":
            # Of any ring: a token may be older than its resource server's ring, or be exchanged
            # from a token that a key of another ring signed.
            return True
        if record.action == "token.revoked":
            kind, name = "client", str(record.detail.get("client_id", ""))
        elif record.action in _OF_CLIENTS:
            kind, name = "client", record.subject
        else:
            kind, _, name = record.subject.partition(":")
        if kind == "client":
            return self._may_hold(session, name, server_id)
        if kind == "scope":
            return self._may_own(session, [record.detail.get("scope", name)], server_id)
        if kind == "resource-server":
            return name == server_id
        if kind == "audience":
            # Of one that was deleted, or that has another identifier now: tokens for this one may
            # be exchanged from its tokens.
            return any(self._directory.find_exchanging(server_id))
        return kind != "programme" or self._may_belong(session, record, name, server_id)

    def _may_hold(self, session: Session, client_id: str, server_id: str) -> bool:
        """Return whether a client could have tokens for a resource server, or act in them.

        A token outlives the withdrawal of its scopes where it is verified offline, so that the
        scopes of earlier records of the client count as well as the present ones. A deleted client
        has those of its records alone.
        """
        client = self._directory.find(client_id)
        if client is not None and self._may_own(session, client.allowed_scopes, server_id):
            return True
        earlier = select(AuditRecord).where(
            AuditRecord.subject == client_id, AuditRecord.action.in_(_CHANGES)
        )
        records = read_records(session, earlier)
        names = {
            name
            for each in records
            for name in each.detail.get("allowed_scopes", each.detail.get("scopes")) or ()
        }
        return self._may_own(session, names, server_id) or self._may_act(
            client, records, client_id, server_id
        )

    def _may_act(
        self,
        client: ClientEntry | None,
        records: Iterable[AuditRecord],
        client_id: str,
        server_id: str,
    ) -> bool:
        """Return whether a token of a client could be the actor token of one for a resource server.

        Such a client needs no scope. It is named as an actor of those that exchange tokens for the
        resource server, or gets tokens in which it is not named, by impersonation.
        """
        policies = tuple(self._directory.find_exchanging(server_id))
        if any(client_id in each.actors for each in policies):
            return True
        present = client.properties.token_exchange if client is not None else None
        return bool(policies) and (
            (present is not None and present.impersonation)
            or any(_has_impersonated(each.detail) for each in records)
        )

    def _may_belong(
        self, session: Session, record: AuditRecord, programme: str, server_id: str
    ) -> bool:
        """Return whether a programme had a scope or a client of a resource server.

        It is not changed while it is stopped: the last definition before the record counts.
        """
        definitions = read_records(
            session,
            select(AuditRecord)
            .where(
                AuditRecord.subject == programme,
                AuditRecord.action == "scope.programme_defined",
                AuditRecord.id < record.id,
            )
            .order_by(AuditRecord.id.desc())
            .limit(1),
        )
        defined: Mapping[str, Any] = definitions[0].detail if definitions else {}
        if not definitions or UNREADABLE_FACT in defined:  # the record was purged or altered
            row = session.get(Programme, programme)
            defined = {} if row is None else {"scopes": row.scopes, "clients": row.clients}
        return self._may_own(session, defined.get("scopes", ()), server_id) or any(
            self._may_hold(session, each, server_id) for each in defined.get("clients", ())
        )

    def _may_own(self, session: Session, scopes: Iterable[str], server_id: str) -> bool:
        """Return whether one of the scopes is of a resource server, or was until it was deleted."""
        gone = []
        for name in scopes:
            entry = self._catalogue.find(name)
            if entry is not None and entry.resource_server_id == server_id:
                return True
            if entry is None or entry.name != name:
                gone.append(name)
        if not gone:
            return False
        earlier = select(AuditRecord).where(
            AuditRecord.subject.in_(gone), AuditRecord.action.in_(_OWNERS)
        )
        records = read_records(session, earlier)
        return any(each.detail.get("resource_server_id") == server_id for each in records)

    def _client(self, client_id: str) -> dict[str, str]:
        return {"format": "iss_sub", "iss": self._issuer, "sub": client_id}

    def _named(self, name: str) -> dict[str, str]:
        return {"format": "opaque", "id": name}


def _has_impersonated(detail: Mapping[str, Any]) -> bool:
    """Return whether the record of a change gives a client the permission to impersonate."""
    properties = detail.get("properties")
    policy = properties.get("token_exchange") if isinstance(properties, dict) else None
    return isinstance(policy, dict) and bool(policy.get("impersonation"))
