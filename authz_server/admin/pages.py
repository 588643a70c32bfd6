"""Pages of lists, with opaque signed cursors."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from authz_server.admin.problems import Problem

T = TypeVar("T")

_MAC_BYTES = 16
_PURPOSE = b"authz-server admin cursor"
#: The largest page.
MAXIMUM_LIMIT = 500
_DEFAULT_LIMIT = 100
#: The size at which a page ends that was given no limit.
_PAGE_BYTES = 50_000


class CursorQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of an answer in parts.

    Attributes:
        cursor: the ``next`` of the part before.
    """

    # It may hold a name of 200 characters and an id.
    cursor: Annotated[str, Meta(max_length=4_000)] | None = None

    def filters(self) -> dict[str, Any]:
        """Return the parameters that select what is answered."""
        values = msgspec.to_builtins(self)
        return {name: each for name, each in values.items() if name not in {"limit", "cursor"}}


class PageQuery(CursorQuery, frozen=True, kw_only=True):
    """The parameters of every list.

    Attributes:
        limit: the largest number of items in the page; null: 100, or as many as some 50 kB hold.
    """

    limit: Annotated[int, Meta(ge=1, le=MAXIMUM_LIMIT)] | None = None

    @property
    def most(self) -> int:
        """The largest number of items in the page."""
        return _DEFAULT_LIMIT if self.limit is None else self.limit


def fitting(items: Sequence[T]) -> Sequence[T]:
    """Return the first items, at least one, whose answer is not larger than a page is to be."""
    size = 0
    for number, each in enumerate(items):
        size += len(msgspec.json.encode(each))
        if size > _PAGE_BYTES:
            return items[: max(number, 1)]
    return items


class Cursors:
    """Makes and reads cursors, which every node accepts.

    Args:
        pepper: the secret that every node has.
    """

    def __init__(self, pepper: bytes) -> None:
        self._key = hmac.digest(pepper, _PURPOSE, "sha256")

    def make(self, path: str, query: CursorQuery, after: Any) -> str:  # noqa: ANN401 - of JSON
        """Return the cursor of the page that follows the item ``after``.

        Args:
            path: the path of the list.
            query: its parameters.
            after: the sorting value of the last item of the present page.
        """
        content = msgspec.json.encode(after)
        return urlsafe_b64encode(self._mac(path, query, content) + content).rstrip(b"=").decode()

    def read(self, path: str, query: CursorQuery) -> Any:  # noqa: ANN401 - as made
        """Return the ``after`` of the query's cursor; None without a cursor.

        Raises:
            Problem: ``invalid-cursor``: it is not a cursor of this list with these filters.
        """
        if query.cursor is None:
            return None
        try:
            text = query.cursor.encode("ascii")
            data = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
            is_canonical = urlsafe_b64encode(data).rstrip(b"=") == text
        except (UnicodeEncodeError, Base64Error, ValueError):
            data, is_canonical = b"", False
        mac, content = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not is_canonical or not hmac.compare_digest(mac, self._mac(path, query, content)):
            raise Problem(
                "invalid-cursor", "Send the next of the page before, with the same filters."
            )
        return msgspec.json.decode(content)

    def _mac(self, path: str, query: CursorQuery, content: bytes) -> bytes:
        # The filters are part of it: a cursor continues the list that it came from.
        signed = msgspec.json.encode([path, query.filters(), content.decode(errors="replace")])
        return hmac.new(self._key, signed, sha256).digest()[:_MAC_BYTES]
