"""Bodies above the usual limit: which requests may have one, and how many at the same time."""

from collections.abc import Callable, Mapping
from weakref import WeakSet

from authz_server.endpoints.request import Request
from authz_server.errors import OAuthError
from authz_server.serving.http import Connection

#: How many large bodies a process keeps in memory.
MOST_AT_ONCE = 2
#: The cookie of a session of the console.
_SESSION = "__Host-authz-server="


class LargeBodies:
    """Permits a few large bodies at a time, before a request is authenticated.

    Args:
        limits: the size in bytes of the largest body, by path.
        usual_limit: returns the limit of other requests.
        is_open: returns whether a connection is open.
    """

    def __init__(
        self,
        limits: Mapping[str, int],
        usual_limit: Callable[[Connection, Request], int],
        is_open: Callable[[Connection], bool],
    ) -> None:
        self._limits = limits
        self._usual_limit = usual_limit
        self._is_open = is_open
        self._under_way: WeakSet[Connection] = WeakSet()

    def limit(self, connection: Connection, request: Request) -> int:
        """Return the size in bytes of the largest body of a request, whose header is complete.

        A connection with a large body ends after its response, so that its memory is freed.

        Raises:
            OAuthError: ``temporarily_unavailable``: too many large bodies are under way.
        """
        usual = self._usual_limit(connection, request)
        limit = self._limits.get(request.path, usual)
        if limit <= usual or not may_be_large(request.method, request.headers):
            return usual
        length = request.headers.get("content-length")
        # A chunked body has no length.
        if "transfer-encoding" not in request.headers and int(length or 0) <= usual:
            return usual
        if sum(map(self._is_open, self._under_way - {connection})) >= MOST_AT_ONCE:
            raise OAuthError("temporarily_unavailable")
        self._under_way.add(connection)
        connection.end_after_message()
        return limit


def may_be_large(method: str, headers: Mapping[str, str]) -> bool:
    """Return whether a request may have a large body: a POST that names a caller or a session."""
    named = headers.get("authorization") or _SESSION in headers.get("cookie", "")
    return method == "POST" and bool(named)
