"""Set the status of a token that was revoked by itself."""

from sqlalchemy import update
from sqlalchemy.orm import Session

from authz_server.database.orm import insert_into
from authz_server.tokens.status_lists.entries import Entry
from authz_server.tokens.status_lists.models import StatusList, StatusRevocation


def set_invalid(session: Session, entry: Entry) -> None:
    """Set the status of a revoked token in its list, unless the list has expired."""
    changed = session.execute(
        update(StatusList)
        .where(StatusList.id == entry.list_id)
        .values(version=StatusList.version + 1)
        .returning(StatusList.id)
    )
    if changed.first() is not None:
        session.execute(
            insert_into(session, StatusRevocation)
            .values(list_id=entry.list_id, position=entry.position)
            .on_conflict_do_nothing()
        )
