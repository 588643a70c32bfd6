"""Public status lists, and the list of them (draft-ietf-oauth-status-list, 8 and 9)."""

import hashlib
from http import HTTPStatus
from urllib.parse import parse_qs

import msgspec
from flask import Flask, Response, request

from authz_server.endpoints.discovery import cacheable
from authz_server.endpoints.preferences import read_qualities
from authz_server.endpoints.responses import new_request_id
from authz_server.errors import OAuthError
from authz_server.tokens.status_lists.publication import STATUS_LIST_TYPE, StatusLists

PATH = "/status-lists"
CONTENT_TYPE = f"application/{STATUS_LIST_TYPE}"
#: A database counts no further.
_MAXIMUM_DIGITS = 18


class StatusListEndpoint:
    """Serves the lists; the database is asked for each request, so that no list is old.

    Args:
        lists: makes the lists.
        hosts: the host names under which they may be cached.
    """

    def __init__(self, lists: StatusLists, hosts: frozenset[str]) -> None:
        self._lists = lists
        self._hosts = hosts

    def show(self, list_id: str) -> Response:
        """Return a list.

        Raises:
            OAuthError: there is no such list, or it cannot be made at present.
        """
        # Flask cannot read a query string in another character set than UTF-8.
        if "time" in parse_qs(request.environ.get("QUERY_STRING", ""), keep_blank_values=True):
            return _without_history()
        if not (list_id.isascii() and list_id.isdigit() and len(list_id) <= _MAXIMUM_DIGITS):
            raise OAuthError("not_found")
        found = self._lists.find(int(list_id))
        if found is None or list_id != str(int(list_id)):
            raise OAuthError("not_found")
        seconds = self._lists.settings.ttl_seconds
        # draft-ietf-oauth-status-list, 8.2
        is_gzip = _prefers_gzip(request.headers.get("Accept-Encoding", ""))
        body, etag = (
            (found.pack(), f'{found.etag[:-1]}-gzip"') if is_gzip else (found.token, found.etag)
        )
        response = cacheable(body, etag, CONTENT_TYPE, seconds, self._hosts)
        response.headers["Vary"] = "Accept-Encoding"
        if is_gzip and response.status_code == HTTPStatus.OK:
            response.headers["Content-Encoding"] = "gzip"
        return response

    def show_all(self) -> Response:
        """Return the addresses of all lists."""
        body = msgspec.json.encode({"status_lists": self._lists.find_live()})
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        seconds = self._lists.settings.ttl_seconds
        return cacheable(body, etag, "application/json", seconds, self._hosts)


def _prefers_gzip(accept_encoding: str) -> bool:
    """Return whether a client takes gzip at least as gladly as no encoding."""
    qualities = read_qualities(accept_encoding)
    others = qualities.get("*", 0.0)
    gzip = qualities.get("gzip", others)
    return gzip > 0 and gzip >= qualities.get("identity", others)


def _without_history() -> Response:
    """Return 501: lists of earlier times are not kept (draft-ietf-oauth-status-list, 8.4)."""
    body = b'{"error":"invalid_request","error_description":"There are no earlier status lists."}'
    headers = {"Cache-Control": "no-store", "X-Request-Id": new_request_id()}
    return Response(body, HTTPStatus.NOT_IMPLEMENTED, headers, content_type="application/json")


def add_status_list_routes(app: Flask, prefix: str, endpoint: StatusListEndpoint) -> frozenset[str]:
    """Serve the lists below the server's prefix; return the path, and that with a slash."""
    app.add_url_rule(f"{prefix}{PATH}", endpoint="status_lists", view_func=endpoint.show_all)
    app.add_url_rule(f"{prefix}{PATH}/<list_id>", endpoint="status_list", view_func=endpoint.show)
    return frozenset({f"{prefix}{PATH}", f"{prefix}{PATH}/"})
