"""Compare the frozen structs that operations return."""

from dataclasses import fields
from typing import TypeVar

View = TypeVar("View")

#: Fields that change with every other change.
_DERIVED = frozenset({"updated_at"})


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
