"""Pages of lists, with opaque signed cursors."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from authz_server.admin.problems import Problem

_MAC_BYTES = 16
_PURPOSE = b"authz-server admin cursor"
#: The largest page.
MAXIMUM_LIMIT = 500


class PageQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of every list.

    Attributes:
        limit: the largest number of items in the page.
        cursor: the ``next`` of the page before.
    """

    limit: Annotated[int, Meta(ge=1, le=MAXIMUM_LIMIT)] = 100
    # It may hold a name of 200 characters and an id.
    cursor: Annotated[str, Meta(max_length=4_000)] | None = None

    def filters(self) -> dict[str, Any]:
        """Return the parameters that select the items of the list."""
        values = msgspec.to_builtins(self)
        return {name: each for name, each in values.items() if name not in {"limit", "cursor"}}


class Cursors:
    """Makes and reads cursors, which every node accepts.

    Args:
        pepper: the secret that every node has.
    """

    def __init__(self, pepper: bytes) -> None:
        self._key = hmac.digest(pepper, _PURPOSE, "sha256")

    def make(self, path: str, query: PageQuery, after: Any) -> str:  # noqa: ANN401 - of JSON
        """Return the cursor of the page that follows the item ``after``.

        Args:
            path: the path of the list.
            query: its parameters.
            after: the sorting value of the last item of the present page.
        """
        content = msgspec.json.encode(after)
        return urlsafe_b64encode(self._mac(path, query, content) + content).rstrip(b"=").decode()

    def read(self, path: str, query: PageQuery) -> Any:  # noqa: ANN401 - as made
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

    def _mac(self, path: str, query: PageQuery, content: bytes) -> bytes:
        # The filters are part of it: a cursor continues the list that it came from.
        signed = msgspec.json.encode([path, query.filters(), content.decode(errors="replace")])
        return hmac.new(self._key, signed, sha256).digest()[:_MAC_BYTES]
