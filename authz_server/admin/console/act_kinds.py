"""The acts of the console and the fields of their forms, as the table of acts states them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Values = Mapping[str, str]
FieldKind = Literal["text", "time", "checkbox", "choice", "lines", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field of a form.

    Attributes:
        name: its name, which is part of the keys of its texts.
        kind: how it is entered; ``lines`` has one entry a line.
        required: whether the act needs it.
        choices: the values of a choice, the first one by default.
        member: the member of the item that it shows before it is changed, with the path to it in
            dots; empty for none.
        words: the name of the field whose texts it has; empty: it has its own.
    """

    name: str
    kind: FieldKind = "text"
    required: bool = False
    choices: tuple[str, ...] = ()
    member: str = ""
    words: str = ""

    @property
    def key(self) -> str:
        """The name in the keys of its texts."""
        return self.words or self.name

    @property
    def is_in_addresses(self) -> bool:
        """Whether an address may have it: keys are too long for one, and a private one leaks."""
        return self.kind != "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One act.

    Attributes:
        name: its name, which is part of its address and of the keys of its texts.
        permission: the permission that it needs.
        instead: the permissions each of which is enough as well.
        words: the name of the act whose texts it has; empty: it has its own.
        path: the path of the request, with ``{}`` for each of the names.
        names: the parameters that the link to the act has.
        back: returns the page to show afterwards.
        method: the method of the request.
        item: the path of the changed item, whose tag the request needs; empty for a creation.
        fields: the further fields that the plan depends on.
        asks_reason: whether the request has a reason, which is recorded.
        body: returns the body; None: there is none.
        is_grave: whether it interrupts a client, or cannot be undone.
        is_shown: whether its result is a page of its own, with a secret or the steps of an order.
    """

    name: str
    permission: str
    path: str
    names: tuple[str, ...]
    back: Callable[[Values], str]
    method: str = "POST"
    item: str = ""
    fields: tuple[Field, ...] = ()
    asks_reason: bool = False
    body: Callable[[Values], dict[str, Any] | None] = lambda _: {}
    is_grave: bool = False
    is_shown: bool = False
    instead: tuple[str, ...] = ()
    words: str = ""

    @property
    def permissions(self) -> tuple[str, ...]:
        """The permissions one of which it needs."""
        return (self.permission, *self.instead)

    @property
    def plans_by_post(self) -> bool:
        """Whether its plan is asked for by POST: an address has not all that is entered."""
        return not all(field.is_in_addresses for field in self.fields)

    @property
    def key(self) -> str:
        """The name in the keys of its texts."""
        return self.words or self.name
