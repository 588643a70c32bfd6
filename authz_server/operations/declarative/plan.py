"""The plan of an application: every entry that is added, changed or removed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Act = Literal["add", "change", "remove"]
Noun = Literal["scope", "resource server", "client", "programme", "operator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """A field with another value; the values are those of the file's format.

    Attributes:
        path: the field, or ``properties.NAME``.
        before: the old value; None: it has none.
        after: the new value; None: it has none.
    """

    path: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedChange:
    """An entry that is added, changed or removed.

    Attributes:
        id: its id, or the canonical name of a scope.
        fields: the fields that change; of a removed entry, none.
        money_scopes: the scopes of risk ``money`` that it is granted by this change.
        secret: the first secret of a new entry: ``generated``, ``imported`` or empty.
    """

    act: Act
    noun: Noun
    id: str
    fields: tuple[FieldChange, ...] = ()
    money_scopes: tuple[str, ...] = ()
    secret: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every change that makes the server agree with the files, in order.

    Attributes:
        digest: the SHA-256 digest of the files, in hex.
        changes: the changes; none: the server agrees with the files.
        unowned_scopes: granted scopes without a resource server; requests for them are refused.
    """

    digest: str
    changes: tuple[PlannedChange, ...]
    unowned_scopes: tuple[str, ...] = ()

    def count(self, act: Act) -> int:
        """Return the number of entries that are added, changed or removed."""
        return sum(change.act == act for change in self.changes)


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    """Return the fields of ``after`` that differ; the properties one by one."""
    changes: list[FieldChange] = []
    for name, value in after.items():
        old = before.get(name)
        if name == "properties":
            changes += _compare_properties(old or {}, value)
        elif old != value:
            changes.append(FieldChange(path=name, before=old, after=value))
    return tuple(changes)


def plain_diff(changes: Sequence[FieldChange]) -> dict[str, Any]:
    """Return the changes in the form of a diff in an audit record."""
    return {each.path: {"before": each.before, "after": each.after} for each in changes}


def diff_of(plan: Plan) -> dict[str, Any]:
    """Return a plan in the form of a diff, with the noun and the id of each entry as its name."""
    return {
        f"{change.noun} {change.id}": {
            "before": _side(change, "before", missing=change.act == "add"),
            "after": _side(change, "after", missing=change.act == "remove"),
        }
        for change in plan.changes
    }


def _side(change: PlannedChange, side: str, *, missing: bool) -> dict[str, Any] | None:
    return None if missing else {each.path: getattr(each, side) for each in change.fields}


def values_of(changes: Sequence[FieldChange]) -> dict[str, Any]:
    """Return the new values by field, with the changed properties in a mapping."""
    values: dict[str, Any] = {}
    for change in changes:
        name, _, within = change.path.partition(".")
        if within:
            values.setdefault(name, {})[within] = change.after
        else:
            values[name] = change.after
    return values


def _compare_properties(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[FieldChange]:
    names = [*after, *(name for name in before if name not in after)]
    return [
        FieldChange(path=f"properties.{name}", before=before.get(name), after=after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]
