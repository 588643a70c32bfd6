"""Run several operations in one transaction, or run them without a change."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from sqlalchemy.orm import Session

from authz_server.assembly import Services

T = TypeVar("T")


class _Undone(Exception):  # noqa: N818 - not an error
    """Ends a transaction without a commit."""


class _JoinedServices:
    """The parts of the server, with one transaction for every operation.

    Args:
        services: the parts of the server.
        session: the session of the transaction.
    """

    def __init__(self, services: Services, session: Session) -> None:
        self._services = services
        self._session = session

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any part
        return getattr(self._services, name)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Yield the session; its transaction is committed by the caller that began it."""
        yield self._session


def run_together(
    services: Services, act: Callable[[Services, Session], T], *, dry_run: bool = False
) -> T:
    """Return the result of ``act``, whose operations are committed together.

    Args:
        services: the parts of the server.
        act: receives the services to call operations with, and the session of the transaction.
        dry_run: undo everything at the end.

    Raises:
        AuditUnavailable: a change could not be recorded; it is not made.
    """
    if not dry_run:
        with services.transaction() as session:
            return act(_joined(services, session), session)
    try:
        with services.database.transaction() as session:
            result = act(_joined(services, session), session)
            raise _Undone  # noqa: TRY301 - ends the transaction
    except _Undone:
        return result


def _joined(services: Services, session: Session) -> Services:
    return cast("Services", _JoinedServices(services, session))
