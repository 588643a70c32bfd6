"""Differences between two states of an item, as pages show them."""

from collections.abc import Iterable
from typing import Any

import msgspec

from authz_server.admin.console.act_bodies import write_roles

#: Members that differ with every change, or without one.
_NOT_COMPARED = frozenset(
    {
        *("updated_at", "last_used_at", "last_used_from", "works", "age_seconds"),
        "pepper_fingerprint",
        # Of an event stream.
        *("pending", "unread", "undelivered", "failures", "last_error", "retry_at", "delivered_at"),
    }
)


def changes_of(diff: object) -> tuple[dict[str, Any], ...]:
    """Return the changes of a diff of the API, one for each member."""
    if not isinstance(diff, dict):
        return ()
    return tuple(
        change_of(name, each.get("before"), each.get("after"))
        for name, each in diff.items()
        if isinstance(each, dict) and each.keys() == {"before", "after"}
    )


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Yield the members that differ, as :func:`changes_of` does."""
    for name in {**before, **after}:
        if name not in _NOT_COMPARED and before.get(name) != after.get(name):
            yield change_of(name, before.get(name), after.get(name))


def change_of(name: str, before: object, after: object) -> dict[str, Any]:
    """Return the change of one member: the members of a list that are added and removed."""
    lists = [each for each in (before, after) if isinstance(each, list)]
    if lists and all(each is None or isinstance(each, list) for each in (before, after)):
        old = before if isinstance(before, list) else []
        new = after if isinstance(after, list) else []
        return {
            "name": name,
            "added": [_text(each) for each in new if each not in old],
            "removed": [_text(each) for each in old if each not in new],
        }
    return {"name": name, "before": _text(before), "after": _text(after)}


def _text(value: object) -> str:
    match value:
        case None | {} if not value:
            return ""
        case dict() if value.keys() >= {"role", "resource_servers", "organisations"}:
            return write_roles([value])
        case str():
            return value
        case dict() if "id" in value:
            return str(value["id"])
    return msgspec.json.encode(value).decode()
