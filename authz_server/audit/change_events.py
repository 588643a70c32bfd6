"""Audit events of changes that need a second person: each has the same fields."""

from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec

from authz_server.audit.event import Event

_FIELDS: tuple[tuple[str, Any] | tuple[str, Any, Any], ...] = (
    ("actor", str),
    ("change", str),
    ("kind", str),
    ("acts", tuple[str, ...]),
    ("concerns", str),
    ("requested_by", str),
    ("reason", str, ""),
    ("problem", str, ""),
    ("diff", Any, None),
    ("outcome", Literal["success"], "success"),
)
_SENTENCES = {
    "requested": "An act that needs a second person waits for an approval.",
    "approved": "A change was approved, and is carried out.",
    "rejected": "A change was rejected.",
    "withdrawn": "A change was withdrawn by its requester.",
    "expired": "A change was not approved in time.",
    "failed": "An approved change could not be carried out.",
    "carried_out": "An act that needs a second person was done without one.",
    "confirmed": "An act that was done without an approval was confirmed.",
}


def _define(name: str, sentence: str) -> type[Event]:
    defined = msgspec.defstruct(
        f"Change{name.title().replace('_', '')}",
        _FIELDS,
        bases=(Event,),
        module=__name__,
        namespace={"__doc__": sentence},
        frozen=True,
        kw_only=True,
        tag=f"change.{name}",
    )
    return cast("type[Event]", defined)


#: The events by name, in the order of ``docs/events.md``.
CHANGE_EVENTS: Mapping[str, type[Event]] = {
    f"change.{name}": _define(name, sentence) for name, sentence in _SENTENCES.items()
}


def make_event(actor: str, action: str, change_id: str, detail: Mapping[str, Any]) -> Event:
    """Return the event of a stored record.

    Args:
        actor: the recorded actor.
        action: a key of :data:`CHANGE_EVENTS`.
        change_id: the id of the change.
        detail: the further facts of the record.
    """
    kind = CHANGE_EVENTS[action]
    facts = {name: detail[name] for name in kind.__struct_fields__ if name in detail}
    return kind(**{**facts, "actor": actor, "change": change_id})
