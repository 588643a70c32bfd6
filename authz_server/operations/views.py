"""Compare the frozen structs that operations return."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import fields
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

View = TypeVar("View")

#: Fields that change with every other change.
_DERIVED = frozenset({"updated_at"})
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
