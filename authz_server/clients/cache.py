"""Cache of all clients and resource servers, which requests read instead of the database."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from authz_server.clients.identifiers import normalised
from authz_server.clients.models import Client
from authz_server.clients.properties import NO_PROPERTIES, ClientProperties, read_properties
from authz_server.clients.restrictions import Restrictions, restrictions_of
from authz_server.clients.secrets import SecretScheme
from authz_server.clients.token_exchange import TokenExchangePolicy
from authz_server.clients.workload_identities import WorkloadIndex
from authz_server.database.change_feed import ChangeSet

logger = logging.getLogger(__name__)

_LOAD_ROWS = 2_000


class SecretEntry(msgspec.Struct, frozen=True, gc=False):
    """A secret: the digest of a generated one, or the record of an imported one.

    ``expires_at`` is 0 for the secret that was ended last, which audit records still identify.
    ``salt`` is that of a derived secret, which signs assertions.
    """

    id: str
    digest: bytes
    imported_record: str
    expires_at: float
    salt: bytes = b""


class ResourceServerEntry(msgspec.Struct, frozen=True, gc=False):
    """The form of tokens for a resource server."""

    identifier: str
    token_format: str
    signing_ring: str | None
    token_type: str = "at+jwt"  # noqa: S105 - a media type, not a secret
    introspection_audience: str = "identifier"


class ClientEntry(msgspec.Struct, frozen=True):
    """A client, or a resource server's credentials; times are seconds since 1970 UTC."""

    id: str
    kind: str
    enabled: bool
    created_at: float
    starts_at: float
    expires_at: float
    authentication_method: str
    grant_types: frozenset[str]
    allowed_scopes: frozenset[str]
    default_scopes: tuple[str, ...]
    allowed_resource_servers: frozenset[str]
    permissions: frozenset[str]
    token_lifetime_seconds: int | None
    g2p_answer: str
    secrets: tuple[SecretEntry, ...]
    resource_server: ResourceServerEntry | None
    properties: ClientProperties = NO_PROPERTIES
    restrictions: Restrictions | None = None
    name: str = ""
    organisation: str = ""

    def is_usable(self, now: float) -> bool:
        """Return whether the client is enabled, between its dates and in a payment window."""
        if not (self.enabled and self.starts_at <= now < self.expires_at):
            return False
        return self.restrictions is None or self.restrictions.is_open(now)

    def find_refusal(self, now: float, address: str | None = None) -> str:
        """Return the cause for which the client is not authenticated; empty if there is none.

        Args:
            now: seconds since 1970 UTC.
            address: the IP address of the sender; None: it is not judged.
        """
        if not self.enabled:
            return "client_disabled"
        if now < self.starts_at:
            return "client_not_yet_valid"
        if now >= self.expires_at:
            return "client_expired"
        restrictions = self.restrictions
        if restrictions is not None and address is not None and not restrictions.admits(address):
            return "network_not_allowed"
        return ""

    def check_grant_type(self, grant_type: str) -> bool:
        """Return whether the client may use ``grant_type`` (a method of Authlib's interface)."""
        return grant_type in self.grant_types


class ClientCache:
    """Finds clients by id and resource servers by identifier, without a query.

    Args:
        secrets: reads the records of secrets.
    """

    def __init__(self, secrets: SecretScheme) -> None:
        self._secrets = secrets
        self._clients: dict[str, ClientEntry] = {}
        self._by_identifier: dict[str, str] = {}
        self._interned: dict[frozenset[str], frozenset[str]] = {}
        self._imported: set[str] = set()
        self._exchanging: set[str] = set()
        #: Finds clients that have no row; None: there are none.
        self.find_further: Callable[[str], ClientEntry | None] | None = None
        #: Finds the clients of a workload.
        self.workloads = WorkloadIndex()

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def holds_imported_secrets(self) -> bool:
        """True if any client has an imported secret, which is slow to verify."""
        return bool(self._imported)

    def find(self, client_id: str) -> ClientEntry | None:
        """Return the client or resource server with this id, or None."""
        found = self._clients.get(client_id)
        if found is None and self.find_further is not None:
            return self.find_further(client_id)
        return found

    def is_registered(self, client_id: str) -> bool:
        """Return whether a stored client or resource server has this id."""
        return client_id in self._clients

    def find_resource_server(self, identifier: str) -> ClientEntry | None:
        """Return the resource server with this identifier URI, or None."""
        client_id = self._by_identifier.get(normalised(identifier))
        return None if client_id is None else self._clients.get(client_id)

    def find_exchanging(self, server_id: str) -> Iterator[TokenExchangePolicy]:
        """Yield what each client may exchange that may exchange tokens for a resource server."""
        # A copy: the change feed works on another thread.
        for client_id in tuple(self._exchanging):
            client = self._clients.get(client_id)
            policy = client.properties.token_exchange if client is not None else None
            if policy is not None and server_id in policy.audiences:
                yield policy

    def apply(self, session: Session, changes: ChangeSet) -> None:
        """Read the changed rows again, or all rows if the change set does not name them."""
        if changes.everything:
            self._load_everything(session)
        elif "client" in changes.subjects:
            self._load_some(session, changes.subjects["client"])

    def _load_everything(self, session: Session) -> None:
        statement = (
            select(Client)
            .options(selectinload(Client.secrets), selectinload(Client.resource_server))
            .order_by(Client.id)
            .limit(_LOAD_ROWS)
        )
        clients: dict[str, ClientEntry] = {}
        after = ""
        while rows := session.scalars(statement.where(Client.id > after)).all():
            for entry in self._entries(rows):
                clients[entry.id] = entry
            after = rows[-1].id
            session.expunge_all()
        self._clients = clients
        self.workloads = WorkloadIndex()
        for entry in clients.values():
            self.workloads.replace(entry.id, entry.properties.workload_identities)
        self._imported = {entry.id for entry in clients.values() if _has_imported(entry)}
        self._exchanging = {entry.id for entry in clients.values() if _is_exchanging(entry)}
        self._by_identifier = {
            normalised(entry.resource_server.identifier): entry.id
            for entry in clients.values()
            if entry.resource_server
        }

    def _load_some(self, session: Session, client_ids: Sequence[str]) -> None:
        for start in range(0, len(client_ids), 500):
            part = client_ids[start : start + 500]
            rows = session.scalars(
                select(Client)
                .options(selectinload(Client.secrets), selectinload(Client.resource_server))
                .where(Client.id.in_(part))
                .execution_options(populate_existing=True)
            ).all()
            found = {entry.id: entry for entry in self._entries(rows)}
            for client_id in part:
                self._replace(client_id, found.get(client_id))

    def _replace(self, client_id: str, entry: ClientEntry | None) -> None:
        before = self._clients.get(client_id)
        if before and before.resource_server:
            self._by_identifier.pop(normalised(before.resource_server.identifier), None)
        self._imported.discard(client_id)
        self._exchanging.discard(client_id)
        identities = entry.properties.workload_identities if entry is not None else ()
        self.workloads.replace(client_id, identities)
        if entry is None:
            self._clients.pop(client_id, None)
            return
        self._clients[client_id] = entry
        if _has_imported(entry):
            self._imported.add(client_id)
        if _is_exchanging(entry):
            self._exchanging.add(client_id)
        if entry.resource_server:
            self._by_identifier[normalised(entry.resource_server.identifier)] = client_id

    def _entries(self, rows: Iterable[Client]) -> Iterable[ClientEntry]:
        for row in rows:
            properties = read_properties(row.properties)
            expires_at = _seconds(row.expires_at, float("inf"))
            yield ClientEntry(
                id=row.id,
                kind=row.kind,
                enabled=row.enabled,
                created_at=row.created_at.timestamp(),
                starts_at=_seconds(row.starts_at, 0.0),
                expires_at=expires_at,
                authentication_method=row.authentication_method,
                grant_types=self._intern(row.grant_types),
                allowed_scopes=self._intern(row.allowed_scopes),
                default_scopes=tuple(row.default_scopes),
                allowed_resource_servers=self._intern(row.allowed_resource_servers),
                permissions=self._intern(row.permissions),
                token_lifetime_seconds=row.token_lifetime_seconds,
                g2p_answer=row.g2p_answer,
                secrets=tuple(self._secrets_of(row)),
                resource_server=_resource_server(row),
                properties=properties,
                restrictions=restrictions_of(properties, expires_at),
                name=row.name,
                organisation=row.organisation or "",
            )

    def _secrets_of(self, row: Client) -> Iterator[SecretEntry]:
        ended = [(secret.ended_at, secret.id) for secret in row.secrets if secret.ended_at]
        last_ended = max(ended)[1] if ended else ""
        for secret in row.secrets:
            if secret.ended_at and secret.id != last_ended:
                continue
            try:
                digest, imported_record = self._secrets.entry_parts(secret.record)
                salt = self._secrets.salt_of(secret.record)
            except ValueError:
                # One damaged record must not stop the load of all clients.
                logger.error("the record of secret %s cannot be read: it is ignored", secret.id)  # noqa: TRY400
                continue
            if not secret.ended_at:
                expires_at = _seconds(secret.expires_at, float("inf"))
                yield SecretEntry(secret.id, digest, imported_record, expires_at, salt)
            elif not imported_record:
                # Never accepted; the audit record then shows that a client still sends it.
                yield SecretEntry(secret.id, digest, imported_record, 0.0, salt)

    def _intern(self, names: list[str]) -> frozenset[str]:
        """Return the shared copy of a set; many clients have the same one."""
        value = frozenset(names)
        return self._interned.setdefault(value, value)


def _has_imported(entry: ClientEntry) -> bool:
    return any(secret.imported_record for secret in entry.secrets)


def _is_exchanging(entry: ClientEntry) -> bool:
    return entry.properties.token_exchange is not None


def _resource_server(row: Client) -> ResourceServerEntry | None:
    found = row.resource_server
    if found is None:
        return None
    return ResourceServerEntry(
        found.identifier,
        found.token_format,
        found.signing_ring,
        found.token_type,
        found.introspection_audience,
    )


def _seconds(at: datetime | None, absent: float) -> float:
    return absent if at is None else at.timestamp()
