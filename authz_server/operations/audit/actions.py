"""The events of a filter: one, or all of a kind."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from authz_server.audit.models import AuditRecord
from authz_server.audit.stored_rows import load

#: The events of stops and revocations of what a record names by its kind.
STOP_ACTIONS = ("stop.set", "stop.lifted", "cut_off.recorded")
#: The events, or the beginnings of events, of which a caller with limits may see records.
_SEEN_ACTIONS = (
    "client.",
    "event_stream.",
    "registration.token_",
    "resource_server.",
    "scope.",
    *STOP_ACTIONS,
)


def find_actions(session: Session, kind: str) -> Sequence[str] | None:
    """Return the actions of a kind that records have: the index is read once for each of all.

    Its own order need not be that of their letters, so that no range of it has one kind.

    Returns:
        None: one of them cannot be read.
    """
    action = AuditRecord.__table__.c.action
    found = select(func.min(action).label("action")).cte("found", recursive=True)
    following = select(func.min(action)).where(action > found.c.action).scalar_subquery()
    found = found.union_all(select(following).where(found.c.action.is_not(None)))
    query = select(found.c.action).where(found.c.action.is_not(None))
    actions = load(lambda: session.scalars(query).all())
    return actions and [each for each in actions if type(each) is str and fits(each, kind)]


def is_kind(action: str) -> bool:
    """Return whether a filter names the events of a kind, such as ``client.``."""
    return action.endswith(".")


def fits(action: str, wanted: str) -> bool:
    """Return whether an event is the one of a filter, or of its kind."""
    return action.startswith(wanted) if is_kind(wanted) else action == wanted


def may_see(action: str) -> bool:
    """Return whether a caller with limits may see records of an event.

    Args:
        action: the event's name; with a trailing ``.`` the events of a kind.
    """
    return any(
        each.startswith(action) if action.endswith(".") else action.startswith(each)
        for each in _SEEN_ACTIONS
    )
