"""An API behind the filter of keystonemiddleware. Arguments: its settings, a port, a scope."""

import sys
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from keystonemiddleware import external_oauth2_token
from oslo_config import cfg


class Handler(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def application(scope: str) -> Callable[..., Iterable[bytes]]:
    """Return an API that answers the client if its roles have the scope."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        permitted = scope in environ["HTTP_X_ROLES"].split(" ")
        start("200 OK" if permitted else "403 Forbidden", [("Content-Type", "text/plain")])
        return [environ["HTTP_X_USER_ID"].encode() if permitted else b""]

    return answer


def main(settings: str, port: int, scope: str) -> None:
    """Serve until the process is ended."""
    cfg.CONF([], project="api", default_config_files=[settings])
    api = external_oauth2_token.filter_factory({})(application(scope))
    with make_server("127.0.0.1", port, api, handler_class=Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
