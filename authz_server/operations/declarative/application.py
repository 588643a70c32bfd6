"""An application of declarative files, and the objects that it concerns."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from authz_server.clients.models import Client
from authz_server.operations.client_acts import find_organisation, find_owners
from authz_server.operations.declarative.document import Declaration, Section
from authz_server.operations.declarative.initial_secrets import InitialSecrets
from authz_server.operations.declarative.limits import SectionLimits
from authz_server.operations.permissions import UNLIMITED, Limits


@dataclass(frozen=True, slots=True)
class Concerned:
    """The objects that an application concerns, by which callers with limits see its change.

    Attributes:
        organisations: those of the registrations; None for one that administers this server.
        resource_servers: the ids of resource servers.
        scopes: the names of scopes, whose resource servers are concerned too.
    """

    organisations: set[str | None] = field(default_factory=set)
    resource_servers: set[str] = field(default_factory=set)
    scopes: set[str] = field(default_factory=set)

    def add_client(self, row: Client) -> None:
        """Add a client or a resource server."""
        if row.kind == "resource_server":
            self.resource_servers.add(row.id)
        self.organisations.add(find_organisation(row.organisation, row.allowed_scopes))
        self.resource_servers.update(row.allowed_resource_servers)
        self.scopes.update(row.allowed_scopes)

    @property
    def organisation(self) -> str | None:
        """The organisation of all of them; None: there are several, or one of the whole server."""
        return next(iter(self.organisations)) if len(self.organisations) == 1 else None

    def find_resource_servers(self, session: Session) -> tuple[str, ...]:
        """Return the ids of the resource servers, sorted."""
        return tuple(sorted({*self.resource_servers, *find_owners(session, self.scopes)}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An application of files: its entries, its actor and its options.

    Attributes:
        declaration: the entries of the files.
        actor: the recorded actor.
        prune: remove what the files do not have, in the sections that they have.
        undone: whether the transaction is undone at its end.
        expected: the revision of the plan that was agreed to; None: any.
        secrets: the first secrets of new registrations.
        limits: the limits of the caller for each section.
        require: refuses a client that the caller may not change, before its change and after it.
        concerned: collects the objects that the application concerns.
    """

    declaration: Declaration
    actor: str
    prune: bool = False
    undone: bool = False
    expected: str | None = None
    secrets: InitialSecrets = field(default_factory=InitialSecrets)
    limits: SectionLimits = field(default_factory=dict)
    require: Callable[[Client], None] = lambda _: None
    concerned: Concerned = field(default_factory=Concerned)

    def limits_of(self, section: Section) -> Limits:
        """Return the limits of the caller for a section."""
        return self.limits.get(section, UNLIMITED)
