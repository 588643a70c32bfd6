"""Changes that a process does not read of by itself."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from authz_server.assembly import Services


@contextmanager
def unread_change(services: Services) -> Iterator[Session]:
    """Yield a transaction; the process reads of its change an interval after the next request."""
    services.maintenance.hold()
    with services.database.transaction() as session:
        yield session
