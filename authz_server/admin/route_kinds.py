"""The kinds of routes of the admin API: what a route states, and how the table makes each kind."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from authz_server.admin.calls import Call, ChangeQuery, NoBody, NoQuery, Reply
from authz_server.admin.pages import PageQuery

Kind = Literal["read", "create", "change", "order"]
Limited = Literal["open", "part", "items", "refused"]


class Done(msgspec.Struct, frozen=True):
    """An answer without an item."""


class Described(msgspec.Struct, frozen=True):
    """A JSON document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path.

    Attributes:
        method: the method.
        path: the path below ``routes.PREFIX``, with its parameters in braces.
        permission: the scope that its callers need; empty: every caller has it.
        act: answers a call; None: the OpenAPI document.
        kind: ``read``; ``create`` runs in a transaction, and heeds ``If-Match`` if it has an item;
            ``change`` likewise, and requires ``If-Match`` with the tag of the item; ``order`` is a
            change that has transactions of its own.
        item: loads the item of the path, whose tag is sent as ``ETag``; None: there is none.
        repeat: answers a creation that is repeated with the same key, from the created subject.
        query: the parameters of the query string.
        body: the members of the body; None: there is none.
        answer: the answer, or the items of a list.
        members: further members of the answer.
        status: the status of a success.
        limited: what a caller with limits gets: ``part``, what lies within them, as the sessions
            of the call are narrowed to it; ``items``, likewise, but the operation narrows them
            for each kind of item, as its permission is limited; ``refused``; ``open``, the same
            as every caller. A route is refused until it is placed in a group of the table.
        one_of: the scopes of which its callers need one, instead of ``permission``; ``prepare``
            requires further ones of them by the request.
        further: the other scopes that its callers need.
        instead: the scopes each of which is enough in place of ``permission``. A recent log-in is
            needed as for that one.
        maximum_body_bytes: the largest body, where it exceeds ``server.maximum_body_bytes``.
        is_long: whether it reads much: one such call runs at a time, for a limited time.
        is_alone: whether one call of such routes runs at a time.
        prepare: does what a change needs before its transaction; None: nothing.
    """

    method: str
    path: str
    permission: str
    act: Callable[[Call], Reply] | None
    kind: Kind = "read"
    item: Callable[[Call], object] | None = None
    repeat: Callable[[Call, str], Reply] | None = None
    query: type[msgspec.Struct] = NoQuery
    body: type[msgspec.Struct] | None = None
    answer: type = Described
    members: type[msgspec.Struct] | None = None
    status: int = 200
    limited: Limited | None = None
    one_of: tuple[str, ...] = ()
    further: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    maximum_body_bytes: int = 0
    is_long: bool = False
    is_alone: bool = False
    prepare: Callable[[Call], object] | None = None

    def __post_init__(self) -> None:
        """Refuse a route that any one of several scopes would open.

        Raises:
            ValueError: it has ``one_of``, and no ``prepare`` that requires the further ones.
        """
        if self.one_of and self.prepare is None:
            raise ValueError(f"{self.path}: one_of needs prepare, which requires further scopes")

    @property
    def changes(self) -> bool:
        """Whether it changes something."""
        return self.kind != "read"

    @property
    def loader(self) -> Callable[[Call], object]:
        """The function that loads its item; RuntimeError if it has none."""
        if self.item is None:
            raise RuntimeError(f"{self.path} has no item")
        return self.item

    @property
    def lists(self) -> bool:
        """Whether it answers a page."""
        return issubclass(self.query, PageQuery)

    @property
    def summary(self) -> str:
        """The first line of what it does, without its full stop."""
        text = "Answer this document." if self.act is None else self.act.__doc__ or ""
        return text.partition("\n")[0].removesuffix(".")


def read_route(path: str, permission: str, act: Callable[[Call], Reply], answer: type) -> Route:
    """Return a route to read an item, which has a tag."""
    return Route(
        method="GET", path=path, permission=permission, act=act, item=_item(act), answer=answer
    )


def show_route(path: str, permission: str, act: Callable[[Call], Reply], answer: type) -> Route:
    """Return a route to read that no change refers to, so that it has no tag."""
    return Route(method="GET", path=path, permission=permission, act=act, answer=answer)


def list_route(  # noqa: PLR0913 - the facts of a route, in the order of the table
    path: str,
    permission: str,
    act: Callable[[Call], Reply],
    answer: type,
    query: type[PageQuery] = PageQuery,
    *,
    members: type[msgspec.Struct] | None = None,
) -> Route:
    """Return a route to a list, which is answered in pages."""
    return Route(
        method="GET",
        path=path,
        permission=permission,
        act=act,
        query=query,
        answer=answer,
        members=members,
    )


def explain_route(
    path: str, act: Callable[[Call], Reply], answer: type, body: type[msgspec.Struct]
) -> Route:
    """Return a route that answers a question in a body, and changes nothing."""
    return Route(
        method="POST", path=path, permission="clients:read", act=act, body=body, answer=answer
    )


def _item(act: Callable[[Call], Reply]) -> Callable[[Call], object]:
    return lambda call: act(call).body


def change_route(  # noqa: PLR0913, PLR0917 - the facts of a route, in the order of the table
    path: str,
    permission: str,
    act: Callable[[Call], Reply],
    item: Callable[[Call], object],
    answer: type,
    body: type[msgspec.Struct] | None = NoBody,
    *,
    method: str = "POST",
    kind: Kind = "change",
    query: type[msgspec.Struct] = ChangeQuery,
) -> Route:
    """Return a route to change an item."""
    return Route(
        method=method,
        path=path,
        permission=permission,
        act=act,
        kind=kind,
        item=item,
        query=query,
        body=body,
        answer=answer,
    )


def create_route(  # noqa: PLR0913, PLR0917 - the facts of a route, in the order of the table
    path: str,
    permission: str,
    act: Callable[[Call], Reply],
    answer: type,
    body: type[msgspec.Struct],
    repeat: Callable[[Call, str], Reply] | None = None,
    *,
    members: type[msgspec.Struct] | None = None,
    status: int = 201,
    item: Callable[[Call], object] | None = None,
) -> Route:
    """Return a route that creates an item; ``item`` loads the one that it replaces, or None."""
    return Route(
        method="POST",
        path=path,
        permission=permission,
        act=act,
        kind="create",
        item=item,
        repeat=repeat,
        query=ChangeQuery,
        body=body,
        answer=answer,
        members=members,
        status=status,
    )


def long(*routes: Route) -> tuple[Route, ...]:
    """Return routes that read files of records: one at a time, and for a limited time."""
    return tuple(replace(route, is_long=True) for route in routes)


def limited_to(limited: Limited, *routes: Route) -> tuple[Route, ...]:
    """Return the routes of a group, whose callers with limits get the same."""
    return tuple(replace(route, limited=limited) for route in routes)
