"""An application of declarative files, and the objects that it concerns."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.clients.models import Client
from authz_server.operations.client_acts import find_organisation, find_owners
from authz_server.operations.declarative.document import Declaration, Section
from authz_server.operations.declarative.initial_secrets import InitialSecrets
from authz_server.operations.declarative.limits import SectionLimits
from authz_server.operations.limited_services import narrow
from authz_server.operations.permissions import UNLIMITED, Limits
from authz_server.operations.reach import Reach


@dataclass(frozen=True, slots=True)
class Concerned:
    """The objects that an application adds, changes or removes, which decide who sees its change.

    Approvers without limits alone see what concerns the whole server: a new or a removed resource
    server, and a scope that belongs to none, before its change or after it.

    Attributes:
        organisations: those of the registrations; None for one that administers this server, and
            for what concerns the whole server.
        resource_servers: the ids of resource servers.
        owners: the ids of the resource servers of the scopes that are changed themselves.
        granted: the names of the scopes that clients have, before a change or after it.
    """

    organisations: set[str | None] = field(default_factory=set)
    resource_servers: set[str] = field(default_factory=set)
    owners: set[str] = field(default_factory=set)
    granted: set[str] = field(default_factory=set)

    def add_client(self, row: Client) -> None:
        """Add a client or a resource server, as it is before its change or after it."""
        if row.kind == "resource_server":
            self.resource_servers.add(row.id)
        self.organisations.add(find_organisation(row.organisation, row.allowed_scopes))
        self.resource_servers.update(row.allowed_resource_servers)
        self.granted.update(row.allowed_scopes)

    def add_scope(self, owner: str | None) -> None:
        """Add a scope that is added, changed, assigned or removed, by its resource server.

        A scope that gets another resource server is added with each of them.
        """
        if owner is None:
            self.add_whole_server()
        else:
            self.owners.add(owner)

    def add_whole_server(self) -> None:
        """Add something that lies within no limits."""
        self.organisations.add(None)

    def find_organisation(self, session: Session) -> str | None:
        """Return the organisation of all of them; None: there are several, or the whole server."""
        # That of a resource server that is removed was added with it.
        found = select(Client.organisation).where(Client.id.in_(self.owners))
        organisations = {*self.organisations, *session.scalars(found)}
        return next(iter(organisations)) if len(organisations) == 1 else None

    def find_resource_servers(self, session: Session) -> tuple[str, ...]:
        """Return the ids of the resource servers, sorted."""
        granted = find_owners(session, self.granted)
        return tuple(sorted({*self.resource_servers, *self.owners, *granted}))


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
        require_roles: refuses roles, by their names, that the caller may not give.
        acting_operator: the id of the operator who applies the files, and does not change her own
            roles; empty for others.
        concerned: collects the objects that the application concerns.
        reaches: what lies within limits, until :meth:`forget_reaches`.
    """

    declaration: Declaration
    actor: str
    prune: bool = False
    undone: bool = False
    expected: str | None = None
    secrets: InitialSecrets = field(default_factory=InitialSecrets)
    limits: SectionLimits = field(default_factory=dict)
    require: Callable[[Client], None] = lambda _: None
    require_roles: Callable[[Iterable[str]], None] = lambda _: None
    acting_operator: str = ""
    concerned: Concerned = field(default_factory=Concerned)
    reaches: dict[Limits, Reach] = field(default_factory=dict)

    @property
    def is_limited(self) -> bool:
        """Whether the caller has limits for one of the sections."""
        return any(self.limits.values())

    @contextmanager
    def narrowed(self, session: Session, section: Section) -> Iterator[Reach | None]:
        """Let a session see what lies within the limits for a section, as :func:`narrow` does.

        Yields:
            what lies within them; None: there are none.
        """
        limits = self.limits.get(section, UNLIMITED)
        with narrow(session, limits, self.reaches.get(limits)) as reach:
            if reach is not None:
                self.reaches[limits] = reach
            yield reach

    def forget_reaches(self) -> None:
        """Read again what lies within limits: scopes or their resource servers have changed."""
        self.reaches.clear()
