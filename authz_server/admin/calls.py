"""A call of the admin API, and its reply."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta
from sqlalchemy.orm import Session

from authz_server.admin.key_contexts import KeyContexts
from authz_server.admin.pages import Cursors, PageQuery, fitting
from authz_server.assembly import Services
from authz_server.assembly.server import ServerServices
from authz_server.operations.approvals import Control
from authz_server.operations.permissions import Caller, Limits

T = TypeVar("T")


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of a request that has none."""


class ChangeQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of a change.

    Attributes:
        dry_run: answer as the change would, and change nothing.
        break_glass: do at once what waits for an approval; a reason is required, and a second
            person confirms it afterwards.
        reason: the reason of the change, for those who approve it.
    """

    dry_run: bool = False
    break_glass: bool = False
    reason: Annotated[str, Meta(max_length=500)] = ""


class NoBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a change that has no members."""


@dataclass(frozen=True, slots=True)
class AdminParts:
    """The parts that calls use.

    Attributes:
        services: the parts of the server.
        cursors: makes and reads cursors.
        keys: opens the contexts of orders.
    """

    services: ServerServices
    cursors: Cursors
    keys: KeyContexts


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call.

    Attributes:
        parts: the parts of the admin API.
        services: the parts to call operations with; in a change, those of its transaction.
        session: the session of the transaction of a change.
        caller: the caller.
        limits: the part of the server for which the caller has the permission of the route.
        path: the path of the request.
        parameters: the parameters in the path, by name.
        query: the parameters in the query string.
        body: the body.
        dry_run: whether nothing is to be changed.
        control: decides on acts of a change that need a second person.
        prepared: what the route prepared before the transaction of the change.
    """

    parts: AdminParts
    services: Services
    session: Session | None = None
    caller: Caller
    limits: Limits
    path: str
    parameters: Mapping[str, str]
    query: Any
    body: Any
    dry_run: bool = False
    control: Control | None = None
    prepared: Any = None

    def given(self, *, without: Iterable[str] = ()) -> dict[str, Any]:
        """Return the members that the body has, by name."""
        values = {name: getattr(self.body, name) for name in self.body.__struct_fields__}
        left_out = frozenset(without)
        return {
            name: value
            for name, value in values.items()
            if value is not msgspec.UNSET and name not in left_out
        }

    def page(
        self, found: Iterable[T], after: Callable[[T], Any], *, whole: bool = False
    ) -> "Reply":
        """Return a page.

        Args:
            found: the items from the cursor on, one more than the limit if there are more; with
                ``whole`` all items of the list.
            after: returns the sorting value of an item.
            whole: whether ``found`` is the whole list, in any order.
        """
        query: PageQuery = self.query
        items = list(found)
        if whole:
            # A database may have another order of letters than the comparison with a cursor.
            items.sort(key=after)
            if (begin := self.after()) is not None:
                items = [each for each in items if after(each) > begin]
        page: Sequence[T] = items[: query.most]
        if query.limit is None:
            page = fitting(page)
        cursor = self.cursor(after(page[-1])) if len(items) > len(page) else None
        return Reply({"items": page, "next": cursor})

    def cursor(self, after: Any) -> str:  # noqa: ANN401 - as a cursor keeps it
        """Return the cursor of the page that follows the item with a sorting value."""
        place = f"{self.caller.key} {self.path}"
        return self.parts.cursors.make(place, self.query, after)

    def after(self) -> Any:  # noqa: ANN401 - as the cursor was made
        """Return the sorting value of the last item of the page before; None for the first page.

        Raises:
            Problem: ``invalid-cursor``.
        """
        return self.parts.cursors.read(f"{self.caller.key} {self.path}", self.query)


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to a call.

    Attributes:
        body: the body.
        members: further members of the body, such as a secret that is shown once.
        subject: the name of a created item, by which a repeated creation finds it.
        location: the path of a created item below the path of its list; empty: it has none.
        diff: the changes; None: they are found by comparing the item before and after.
        has_recorded_diff: whether the records of the call have diffs of their own.
    """

    body: Any
    members: Mapping[str, Any] = field(default_factory=dict)
    subject: str = ""
    location: str = ""
    diff: Any = None
    has_recorded_diff: bool = False
