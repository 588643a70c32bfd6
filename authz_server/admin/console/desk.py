"""The admin API for the operator of one request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from authz_server.admin.api import AdminApi, Performed
from authz_server.operations.permissions import Caller

_PAGE = 500
#: A list that a page needs as a whole is read up to this number of items.
MAXIMUM_ITEMS = 5_000
_FIRST_REFUSAL = 400
_NOT_PERMITTED = frozenset({403, 404})
#: Resources that no operator with limits may read.
_OF_WHOLE_SERVER = ("/activity", "/operators", "/programmes", "/rings", "/roles", "/settings")


@dataclass(eq=False)
class RefusedError(Exception):
    """The API refused a request.

    Attributes:
        answer: the refusal, with the problem details in its body.
    """

    answer: Performed

    @property
    def problem(self) -> str:
        """The name of the problem, such as ``not-found``."""
        return str(self.answer.body.get("type", "")).rpartition(":")[2]


class Desk:
    """Reads and writes by the routes of the admin API, as one caller.

    Args:
        api: the admin API.
        caller: the operator.
        address: the IP address of the operator.
    """

    def __init__(self, api: AdminApi, caller: Caller, address: str) -> None:
        self._api = api
        self._address = address
        self.caller = caller

    def may(self, *permissions: str) -> bool:
        """Return whether the operator has one of them; the API decides on each request."""
        return "" in permissions or not self.caller.permissions.isdisjoint(permissions)

    def send(  # noqa: PLR0913 - the parts of a request, by name
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        if_match: str | None = None,
        idempotency_key: str = "",
    ) -> Performed:
        """Return the answer to a request.

        Args:
            method: the method.
            path: the path below the prefix of the API, percent-encoded.
            query: the parameters; None and empty values are left out.
            body: the body; None: there is none.
            if_match: the tag that a change is based on.
            idempotency_key: the key of a creation; empty for none.

        Raises:
            RefusedError: the API refused it.
        """
        given = {name: each for name, each in (query or {}).items() if each not in {None, ""}}
        answer = self._api.perform(
            self.caller,
            method,
            path,
            query=given,
            body=body,
            if_match=if_match,
            idempotency_key=idempotency_key,
            address=self._address,
        )
        if answer.status >= _FIRST_REFUSAL:
            raise RefusedError(answer)
        return answer

    def get(self, path: str, **query: object) -> Any:  # noqa: ANN401 - any JSON
        """Return a resource; RefusedError if the API refuses it."""
        return self.send("GET", path, query=query).body

    def find(self, path: str, permission: str, **query: object) -> Any:  # noqa: ANN401 - any JSON
        """Return a resource; None if the operator may not read it or there is none."""
        # The refusal of a request would be recorded.
        limits = self.caller.limits_for(permission)
        if limits is None or (limits and path.startswith(_OF_WHOLE_SERVER)):
            return None
        try:
            return self.get(path, **query)
        except RefusedError as refusal:
            if refusal.answer.status in _NOT_PERMITTED:
                return None
            raise

    def every(self, path: str, permission: str, **query: object) -> list[dict[str, Any]]:
        """Return all items of a list that a page needs whole; none if it may not be read."""
        found: list[dict[str, Any]] = []
        cursor = None
        while len(found) < MAXIMUM_ITEMS:
            page = self.find(path, permission, **query, limit=_PAGE, cursor=cursor)
            found += page["items"] if page else ()
            cursor = page["next"] if page else None
            if cursor is None:
                break
        return found


def path_of(template: str, *names: str) -> str:
    """Return a path of the API; each ``{}`` of the template is replaced by a name, encoded."""
    return template.format(*(quote(name, safe="") for name in names))
