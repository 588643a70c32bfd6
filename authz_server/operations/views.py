"""Compare the frozen structs that operations return, and record the differences."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import fields
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from authz_server.audit.event import WITHOUT_DIFF

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

View = TypeVar("View")

#: Fields that change with every other change.
_DERIVED = frozenset({"updated_at"})
#: Members that differ with every change, or without one.
_NOT_COMPARED = frozenset({"updated_at", "last_used_at", "last_used_from", "pepper_fingerprint"})
#: Members that differ without a change of the item.
_VOLATILE = frozenset(
    {
        *("last_used_at", "last_used_from", "works", "loaded_at", "age_seconds", "uses_left"),
        # Known once a secret has been used.
        "pepper_fingerprint",
        # Of an event stream.
        *("pending", "unread", "undelivered", "failures", "last_error", "retry_at", "delivered_at"),
    }
)
_REVISION_CHARACTERS = 22

_encode = msgspec.json.Encoder(order="deterministic").encode


def changed_fields(before: View, after: View) -> tuple[str, ...]:
    """Return the names of the fields that differ, in the order of the struct.

    Args:
        before: a frozen dataclass.
        after: another of the same class.
    """
    return tuple(
        each.name
        for each in fields(after)  # type: ignore[arg-type]
        if each.name not in _DERIVED and getattr(before, each.name) != getattr(after, each.name)
    )


def difference(before: object, after: object) -> dict[str, Any]:
    """Return the members that differ, each with both values.

    Args:
        before: a view; None: there was none.
        after: another of the same class; None: there is none.
    """
    old, new = (
        {} if each is None else msgspec.to_builtins(each, order="deterministic")
        for each in (before, after)
    )
    return {
        name: {"before": old.get(name), "after": new.get(name)}
        for name in {**old, **new}
        if name not in _NOT_COMPARED and old.get(name) != new.get(name)
    }


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


def revision_of(view: object) -> str:
    """Return the revision of a view, which each change of its object changes."""
    digest = sha256(_encode(_without_volatile(msgspec.to_builtins(view)))).digest()
    return urlsafe_b64encode(digest).decode()[:_REVISION_CHARACTERS]


def _without_volatile(value: Any) -> Any:  # noqa: ANN401 - any JSON
    match value:
        case dict():
            kept = ((name, each) for name, each in value.items() if name not in _VOLATILE)
            return {name: _without_volatile(each) for name, each in kept}
        case list() | tuple():
            return [_without_volatile(each) for each in value]
    return value
