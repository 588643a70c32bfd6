"""The first secrets of the clients and resource servers that declarative files add."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.clients.models import Client
from authz_server.clients.secret_changes import PreparedSecret
from authz_server.clients.secrets import is_secret_method
from authz_server.operations.client_secrets import add_initial_secret


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialSecrets:
    """The first secrets of new clients and resource servers.

    Args:
        keep: receives the id and each generated secret; None: none is generated.
        find_imported: returns an existing secret to store, by id; None: there is none.
        prepared: the secrets that an approved application adds, by the id of their owner.
        writes: whether secrets are made; otherwise they are only planned.
        made: those that are made, by the id of their owner.
    """

    keep: Callable[[str, str], object] | None = None
    find_imported: Callable[[str], bytes | None] = lambda _: None
    prepared: Mapping[str, PreparedSecret] = field(default_factory=dict)
    writes: bool = True
    made: dict[str, PreparedSecret] = field(default_factory=dict)

    def add(self, services: Services, session: Session, row: Client, *, actor: str) -> str:
        """Add the first secret of a new registration; return how it comes about, or nothing."""
        if not is_secret_method(row.authentication_method):
            return ""
        imported, prepared = self.find_imported(row.id), self.prepared.get(row.id)
        is_imported = imported is not None or (prepared is not None and prepared.is_imported)
        wanted = self.keep is not None or prepared is not None
        kind = "imported" if is_imported else "generated" if wanted else ""
        if not kind or not self.writes:
            return kind
        secret = add_initial_secret(
            services,
            session,
            row.id,
            actor=actor,
            wanted=True,
            imported=imported,
            prepared=prepared,
        )
        for each in row.secrets:
            self.made[row.id] = PreparedSecret(each.id, each.record)
        if secret is not None and secret.value and self.keep is not None:
            self.keep(row.id, secret.value)
        return kind
