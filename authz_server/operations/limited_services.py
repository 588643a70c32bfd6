"""The parts of the server as a limited administrator sees them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, cast

from sqlalchemy import event, false, inspect, select
from sqlalchemy.orm import ORMExecuteState, Session

from authz_server.assembly import Services
from authz_server.clients.cache import ClientEntry
from authz_server.clients.models import Client, ClientSecret, ResourceServer
from authz_server.clients.registration.models import InitialAccessToken
from authz_server.database.change_feed import Revision
from authz_server.errors import OperatorError
from authz_server.operations.client_search import LISTS_CLIENTS, SEEN_CLIENTS
from authz_server.operations.criteria import criteria_of
from authz_server.operations.id_lists import CLIENT_RANGE, OWN_SUBJECTS, SEEN_SPELLINGS
from authz_server.operations.permissions import Limits
from authz_server.operations.reach import Reach
from authz_server.operations.reach_reading import find_client_range, load_reach
from authz_server.scopes.models import Scope
from authz_server.tokens.event_streams.models import EventStream, UndeliveredEvent

#: The largest number of limits that are remembered.
_REMEMBERED = 100


class OutsideLimitsError(OperatorError):
    """A change reaches beyond the limits of the caller.

    Args:
        subject: what would be changed.
    """

    def __init__(self, subject: str) -> None:
        super().__init__(f"{subject} does not lie within your limits alone.")


class _LimitedDatabase:
    """The database, whose sessions see what is within limits.

    Args:
        services: the parts of the server.
        reach: what is within the limits.
    """

    def __init__(self, services: Services, reach: Reach) -> None:
        self._database = services.database
        self._reach = reach

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any member
        return getattr(self._database, name)

    def transaction(self) -> AbstractContextManager[Session]:
        """Yield a narrowed session, as that of the database."""
        return _narrowed(self._database.transaction, self._reach)

    def reading(self) -> AbstractContextManager[Session]:
        """Yield a narrowed session, as that of the database."""
        return _narrowed(self._database.reading, self._reach)


class _LimitedDirectory:
    """The clients in memory, of which those that the caller may change are found.

    Args:
        services: the parts of the server.
        database: the database, whose sessions see what is within limits.
        reach: what is within the limits.
    """

    def __init__(self, services: Services, database: _LimitedDatabase, reach: Reach) -> None:
        self._directory = services.directory
        self._database = database
        self._reach = reach

    def find(self, client_id: str) -> ClientEntry | None:
        """Return the client or resource server with this id, or None."""
        with self._database.reading() as session:
            row = session.get(Client, client_id)
            is_own = row is not None and self._reach.owns_row(row)
        return self._directory.find(client_id) if is_own else None


class _LimitedServices:
    """The parts of the server, whose sessions see what is within limits.

    Args:
        services: the parts of the server.
        reach: what is within the limits.
    """

    def __init__(self, services: Services, reach: Reach) -> None:
        self._services = self.whole = services
        self.reach = reach
        self.database = _LimitedDatabase(services, reach)
        self.directory = _LimitedDirectory(services, self.database, reach)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any part
        return getattr(self._services, name)

    def transaction(self) -> AbstractContextManager[Session]:
        """Yield a narrowed session, as that of the parts."""
        return _narrowed(self._services.transaction, self.reach)


class ReachMemory:
    """Memory of what lies within the limits of callers, which is read again after a change.

    Every act that brings something within limits records a change of the feed.
    """

    def __init__(self) -> None:
        self._known: dict[_Key, tuple[int | None, Reach]] = {}

    def find(self, session: Session, key: "_Key") -> Reach:
        """Return what lies within limits at present.

        Args:
            session: a session that is not narrowed.
            key: the limits, the requester, and whether nothing is changed.
        """
        # Read first: a change in between is noticed by the next call.
        revision = session.scalar(select(Revision.value))
        known = self._known.get(key)
        if known is not None and known[0] == revision:
            return known[1]
        reach = _read_reach(session, key)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[key] = (revision, reach)
        return reach


_Key = tuple[Limits, str, bool]


def _read_reach(session: Session, key: _Key) -> Reach:
    limits, requester, only_reads = key
    reach = replace(load_reach(session, limits), requester=requester)
    if not only_reads:
        return reach
    reach = reach.with_ids(session)
    return replace(reach, client_range=find_client_range(session, reach))


def limit_services(
    services: Services,
    limits: Limits,
    requester: str = "",
    *,
    only_reads: bool = False,
    memory: ReachMemory | None = None,
) -> Services:
    """Return the parts as a caller with these limits sees them.

    Args:
        services: the parts of the server.
        limits: the limits; without one, the parts are returned as they are.
        requester: the key of the caller, whose own changes are seen too; empty: none are.
        only_reads: whether nothing is changed by these parts, which find the clients faster then.
        memory: what was read for earlier calls; None: nothing.
    """
    if not limits:
        return services
    key = (limits, requester, only_reads)
    with services.database.reading() as session:
        reach = _read_reach(session, key) if memory is None else memory.find(session, key)
    return cast("Services", _LimitedServices(services, reach))


def reach_of(services: Services) -> Reach | None:
    """Return what is within the limits of the caller; None: there are none."""
    found: Reach | None = getattr(services, "reach", None)
    return found


def without_limits(services: Services) -> Services:
    """Return the parts of the whole server, for what is judged and not shown."""
    whole: Services = getattr(services, "whole", services)
    return whole


def require_own(services: Services, kind: str, subject: str) -> None:
    """Require that a subject lies within the limits of the caller, if there are any.

    Args:
        services: the parts of the server, as the caller sees them.
        kind: ``scope``, ``client``, ``resource-server`` or another kind of a stop.
        subject: its canonical name or id.

    Raises:
        OutsideLimitsError: it does not.
    """
    reach = reach_of(services)
    if reach is None:
        return
    with services.database.reading() as session:
        if not reach.owns(kind, subject, session):
            raise OutsideLimitsError(f"The {kind.replace('-', ' ')} {subject!r}")


def _find_subjects(reach: Reach) -> Sequence[str] | None:
    """Return the subjects of the records that a caller sees; None: they are many."""
    if reach.own_clients is None or reach.own_tokens is None:
        return None
    named = {
        "client": reach.own_clients,
        "resource-server": reach.own_servers,
        "scope": reach.own_scopes,
    }
    by_kind = (f"{kind}:{each}" for kind, names in named.items() for each in names)
    return [*chain(*named.values()), *by_kind, *reach.own_tokens]


@contextmanager
def _narrowed(
    begin: Callable[[], AbstractContextManager[Session]], reach: Reach
) -> Iterator[Session]:
    with begin() as session:
        _narrow(session, reach)
        session.info[SEEN_CLIENTS] = reach.seen_clients
        session.info[OWN_SUBJECTS] = partial(_find_subjects, reach)
        session.info[CLIENT_RANGE] = reach.client_range
        session.info[SEEN_SPELLINGS] = reach.spellings
        yield session


@contextmanager
def narrow(session: Session, limits: Limits, reach: Reach | None = None) -> Iterator[Reach | None]:
    """Let a session see what is within limits, and refuse to change anything else, in a block.

    Every client and scope of the session is expired after the block.

    Args:
        session: a session that is not narrowed.
        limits: the limits.
        reach: what is within them; None: it is read.

    Yields:
        what is within the limits; None without limits, where the session stays as it is.

    Raises:
        OutsideLimitsError: the block changes something else.
    """
    if not limits:
        yield None
        return
    session.flush()
    if reach is None:
        reach = load_reach(session, limits)
    listeners = _narrow(session, reach)
    try:
        yield reach
        session.flush()
    finally:
        for name, listener in listeners.items():
            event.remove(session, name, listener)
        # The block may have loaded the secrets of a client, or the spellings of a scope, in part.
        for row in session.identity_map.values():
            if isinstance(row, Client | Scope):
                session.expire(row)


def _narrow(session: Session, reach: Reach) -> Mapping[str, Callable[..., None]]:
    """Make a session see what is within limits, and refuse to change anything else.

    Returns:
        the listeners of the session that do so, by their event.
    """

    def select_seen(state: ORMExecuteState) -> None:
        if state.is_column_load or not (state.is_select or state.is_update or state.is_delete):
            return
        unknown = {mapper.class_ for mapper in state.all_mappers} - reach.conditions.keys()
        further = [criteria_of(kind, false()) for kind in unknown]
        lists_clients = state.execution_options.get(LISTS_CLIENTS, False)
        options = reach.options_of_lists if lists_clients else reach.options
        state.statement = state.statement.options(*options, *further)

    def require_own(session: Session, *_: object) -> None:
        for row in (*session.new, *session.dirty, *session.deleted):
            if row not in session.dirty or session.is_modified(row):
                _require_own(session, reach, row)

    listeners: Mapping[str, Callable[..., None]] = {
        "do_orm_execute": select_seen,
        "before_flush": require_own,
    }
    for name, listener in listeners.items():
        event.listen(session, name, listener)
    return listeners


def _require_own(session: Session, reach: Reach, row: object) -> None:
    """Require that a row was within the limits before a change, and is after it.

    Raises:
        OutsideLimitsError: it is not.
    """
    match row:
        case Client():
            _require_own_client(reach, row)
        case ClientSecret():
            client = session.get(Client, row.client_id)
            if client is None:
                raise OutsideLimitsError(f"The client {row.client_id!r}")
            _require_own_client(reach, client)
        case ResourceServer():
            # The identifiers of others cannot be compared with a new one without naming them.
            if row.client_id not in reach.own_servers or _earlier(row, "identifier"):
                raise OutsideLimitsError(f"The identifier of {row.client_id!r}")
        case InitialAccessToken():
            if not reach.owns_token(row):
                raise OutsideLimitsError("The initial access token")
        case EventStream() | Scope() | UndeliveredEvent():
            owners = {row.resource_server_id, *_earlier(row, "resource_server_id")}
            if not owners <= reach.own_servers:
                named = f"scope {row.name!r}" if isinstance(row, Scope) else "event stream"
                raise OutsideLimitsError(f"The {named}")


def _require_own_client(reach: Reach, row: Client) -> None:
    # Permissions such as introspect_any reach beyond every limit.
    if inspect(row).attrs.permissions.history.has_changes() and row.permissions:
        raise OutsideLimitsError(f"A permission of {row.id!r}")
    if row.kind == "resource_server":
        organisations = reach.limits.organisations
        is_own = row.id in reach.own_servers and (
            organisations is None or row.organisation in organisations
        )
    else:
        is_own = reach.owns_client(row) and reach.owns_client(_Before(row))
    if not is_own:
        raise OutsideLimitsError(f"The {row.kind.replace('_', ' ')} {row.id!r}")


class _Before:
    """The fields of a client before a change.

    Args:
        row: the client, changed and not yet flushed.
    """

    def __init__(self, row: Client) -> None:
        self._row = row

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any field
        earlier = _earlier(self._row, name)
        return earlier[0] if earlier else getattr(self._row, name)


def _earlier(row: object, name: str) -> tuple[Any, ...]:
    """Return the value of a field before a change, if it is known to differ."""
    found: tuple[Any, ...] = tuple(inspect(row).attrs[name].history.deleted or ())
    return found
