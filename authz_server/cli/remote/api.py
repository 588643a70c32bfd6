"""Requests to the admin API: items, lists, creations and changes, and its refusals as errors."""

import secrets
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from authz_server.cli.plain_text import shown
from authz_server.cli.remote.connection import (
    Connection,
    LostConnectionError,
    RemoteError,
    Response,
)
from authz_server.cli.remote.credentials import Credentials
from authz_server.cli.remote.waiting import WaitsForApproval
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError, OperatorError
from keys.errors import TokenRefusedError
from keys.jose.compact import parse_json_object

PREFIX = "/admin/v1"
PAGE = 500
_PROBLEM = "urn:authz-server:problem:"
_JSON = "application/json"
_ACCEPTED = 202

T = TypeVar("T")
Query = Mapping[str, object]
Body = Mapping[str, object]

#: The errors of operations that the API answers as these problems.
_ERRORS: Mapping[str, type[OperatorError]] = {
    "not-found": NotFoundError,
    "conflict": ConflictError,
    "precondition-failed": ConflictError,
    "invalid-value": InvalidChangeError,
    "invalid-request": InvalidChangeError,
}


class AdminApi:
    """Sends requests to the admin API of a server.

    The tag of an item that was read, planned or changed is the condition of the next change of it.

    Args:
        connection: the connection to its management listener.
        credentials: authenticate the requests.
    """

    def __init__(self, connection: Connection, credentials: Credentials) -> None:
        self._connection = connection
        self._credentials = credentials
        self._tags: dict[str, str] = {}

    def read(self, kind: type[T], permission: str, *path: str, **query: object) -> T:
        """Return an item.

        Args:
            kind: its type.
            permission: the permission that it needs.
            path: the segments of its path.
            query: the parameters; empty ones are left out.

        Raises:
            OperatorError: the API refuses, or cannot be reached.
        """
        return convert(self.answer("GET", permission, path, query=query), kind)

    def list(
        self,
        kind: type[T],
        permission: str,
        *path: str,
        most: int | None = None,
        **query: object,
    ) -> tuple[T, ...]:
        """Return the items of a list, in its order.

        Args:
            kind: the type of an item.
            permission: the permission that it needs.
            path: the segments of its path.
            most: the largest number of items; None: all.
            query: the filters; empty ones are left out.

        Raises:
            OperatorError: the API refuses, or cannot be reached.
        """
        pages = self.pages(permission, *path, most=most, **query)
        return tuple(convert(each, kind) for page in pages for each in page["items"])

    def pages(
        self, permission: str, *path: str, most: int | None = None, **query: object
    ) -> Iterator[dict[str, Any]]:
        """Yield the pages of a list; the arguments are those of :meth:`list`."""
        count, cursor = 0, None
        while True:
            limit = PAGE if most is None else max(1, min(PAGE, most - count))
            asked = {**query, "limit": limit, "cursor": cursor}
            page = self.answer("GET", permission, path, query=asked)
            yield page
            count += len(page["items"])
            cursor = page["next"]
            if cursor is None or (most is not None and count >= most):
                return

    def create(self, permission: str, *path: str, body: Body) -> dict[str, Any]:
        """Create an item; return the answer.

        The request is sent again if its answer is lost; its key makes that safe.

        Args:
            permission: the permission that it needs.
            path: the segments of the path of its list.
            body: its members; empty ones are left out.

        Raises:
            WaitsForApproval: it waits for an approval.
            OperatorError: the API refuses, or cannot be reached.
        """
        given = {name: each for name, each in body.items() if each not in (None, "", (), [], {})}
        headers = {"Idempotency-Key": secrets.token_urlsafe(24)}
        try:
            return self.answer("POST", permission, path, body=given, headers=headers)
        except LostConnectionError:
            try:
                repeated = self.answer("POST", permission, path, body=given, headers=headers)
            except WaitsForApproval as waiting:
                if "imported_secret" in given or not waiting.lacks_secret:
                    raise
                raise RemoteError(
                    f"The change {waiting} waits for an approval, but the answer that showed its"
                    " secret or link once was lost: withdraw it by `authz-server changes withdraw"
                    f" {waiting}`, and request it again."
                ) from waiting
        if hint := repeated.get("secret_hint") or repeated.get("enrolment_hint"):
            raise RemoteError(f"It is created, but the answer that showed it once was lost. {hint}")
        return repeated

    def post(
        self, permission: str, *path: str, body: Body, dry_run: bool = False
    ) -> dict[str, Any]:
        """Send a request that neither creates nor changes one item; return the answer.

        Args:
            permission: the permission that it needs.
            path: the segments of its path.
            body: its members; absent ones are None.
            dry_run: only plan it.

        Raises:
            WaitsForApproval: it waits for an approval.
            OperatorError: the API refuses, or cannot be reached.
        """
        given = {name: each for name, each in body.items() if each is not None}
        return self.answer("POST", permission, path, query={"dry_run": dry_run}, body=given)

    def change(
        self,
        method: str,
        permission: str,
        *path: str,
        item: tuple[str, ...] = (),
        body: Body | None = None,
        **query: object,
    ) -> dict[str, Any]:
        """Change an item; return the answer.

        Args:
            method: the method.
            permission: the permission that it needs.
            path: the segments of its path.
            item: the path of the item that it changes, if it is another.
            body: its members.
            query: the parameters; empty ones are left out.

        Raises:
            WaitsForApproval: it waits for an approval.
            OperatorError: the API refuses, or cannot be reached.
        """
        tag = self._tags.get(_joined(item or path), "*")
        return self.answer(
            method,
            permission,
            path,
            item=item,
            query=query,
            body=body,
            headers={"If-Match": tag},
        )

    def answer(  # noqa: PLR0913 - the parts of a request
        self,
        method: str,
        permission: str,
        path: tuple[str, ...],
        *,
        item: tuple[str, ...] = (),
        query: Query | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Return the members of the answer to a request.

        Args:
            method: the method.
            permission: the permission that it needs.
            path: the segments of its path.
            item: the path of the item whose tag the answer has, if it is another.
            query: the parameters; empty ones are left out.
            body: the members of the body; None: there is none.
            headers: further headers.

        Raises:
            WaitsForApproval: it waits for an approval.
            OperatorError: the API refuses, or cannot be reached.
        """
        sent = {"Accept": _JSON, **(headers or {})}
        content = None
        if body is not None:
            sent["Content-Type"] = _JSON
            content = msgspec.json.encode(body)
        response = self._send(method, permission, path, _query(query or {}), sent, content)
        members = _read(response, self._connection.url)
        if response.status == _ACCEPTED:
            raise WaitsForApproval(members)
        if tag := response.headers.get("etag"):
            self._tags[_joined(item or path)] = tag
        return members

    def _send(  # noqa: PLR0913, PLR0917 - the parts of a request
        self,
        method: str,
        permission: str,
        path: tuple[str, ...],
        query: str,
        headers: dict[str, str],
        body: bytes | None,
    ) -> Response:
        place = f"{PREFIX}/{_joined(path)}"
        url = f"{self._connection.url}{place}"
        proof = self._credentials.headers(method, url, permission)
        response = self._connection.send(method, place + query, headers | proof, body)
        if not self._credentials.wants_repetition(response):
            return response
        proof = self._credentials.headers(method, url, permission)
        return self._connection.send(method, place + query, headers | proof, body)


def convert(value: object, kind: type[T]) -> T:
    """Return the value of a type in an answer; members that the type does not have are left out.

    Raises:
        RemoteError: it has another form, as of another release.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise RemoteError(
            f"The answer of the server has another form: {error}. Is it of another release?"
        ) from error


def _read(response: Response, url: str) -> dict[str, Any]:
    """Return the members of a successful response; raise the error of another one."""
    if 300 <= response.status < 400:  # noqa: PLR2004 - redirections
        place = response.headers.get("location", "another address")
        raise RemoteError(f"{url} redirects to {shown(place)}: name that server instead.")
    try:
        members = parse_json_object(response.body)
    except TokenRefusedError:
        members = {}
    if response.status < 300 and members:  # noqa: PLR2004 - successes
        return members
    kind = str(members.get("type", ""))
    if not kind.startswith(_PROBLEM):
        raise RemoteError(
            f"{url} answers {response.status}, and not as the admin API does: name the URL of the"
            " management listener (admin.public_url)."
        )
    raise _error(kind.removeprefix(_PROBLEM), members, response)


def _error(name: str, members: Mapping[str, Any], response: Response) -> OperatorError:
    text = str(members.get("detail") or f"{members.get('title', name)}.")
    match name:
        case "invalid-token":
            text = (
                "The server refuses the access token: it is expired, revoked, bound to a key, or"
                " not for urn:authz-server:admin."
            )
        case "invalid-dpop-proof":
            text = f"{text} The URL of --server is to be admin.public_url."
        case "too-many-requests":
            text = f"{text} Try again in {response.headers.get('retry-after', 'some')} s."
    return _ERRORS.get(name, OperatorError)(shown(text))


def _joined(path: tuple[str, ...]) -> str:
    return "/".join(quote(each, safe="") for each in path)


def _query(values: Query) -> str:
    given = {name: _text(each) for name, each in values.items() if each not in (None, "", False)}
    return f"?{urlencode(given)}" if given else ""


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return "true" if value is True else str(value)
