"""The diff of an act in its audit records, by whichever way the act comes in."""

import msgspec
from sqlalchemy.orm import Session

from authz_server.audit.event import WITHOUT_DIFF
from authz_server.operations.views import difference


def record_difference(
    session: Session, before: object, after: object, *, subject: str | None = None
) -> None:
    """Give the records of an act the members that it changed.

    Args:
        session: the transaction, after the records were added.
        before: the view of the object before; None: there was none.
        after: the view after; None: there is none.
        subject: the id or the name of the object, by which the records of further acts in the
            transaction are left out; None: there are none.
    """
    record_diff(session, difference(before, after), subject=subject)


def record_diff(session: Session, diff: object, *, subject: str | None = None) -> None:
    """Give the records of an act its diff; those of an earlier act keep theirs.

    Args:
        session: the transaction, after the records were added.
        diff: the changed members with their values before and after.
        subject: as for :func:`record_difference`.
    """
    plain = msgspec.to_builtins(diff)
    left = []
    for record in session.info.get(WITHOUT_DIFF, ()):
        if "diff" in record.detail:
            continue
        if subject is None or subject in {record.subject, record.subject.partition(":")[2]}:
            record.detail = {**record.detail, "diff": plain}
        else:
            left.append(record)
    session.info[WITHOUT_DIFF] = left
