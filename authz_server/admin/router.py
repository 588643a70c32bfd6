"""Find the route of a request, by its method and path."""

from collections.abc import Iterable, Iterator, Mapping

from authz_server.admin.bodies import read_segment
from authz_server.admin.problems import Problem
from authz_server.admin.routes import PREFIX, Route

Found = tuple[Route, Mapping[str, str]]


class Router:
    """Finds routes; a fixed segment comes before a parameter.

    Args:
        routes: the table.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        # The routes with fewer parameters first: /scopes/imports is not the scope "imports".
        ordered = sorted(routes, key=lambda route: route.path.count("{"))
        self._routes = [(route.path.split("/"), route) for route in ordered]

    def find(self, method: str, path: str) -> Found:
        """Return the route and the decoded parameters of its path.

        Args:
            method: the method; HEAD is answered as GET without its body.
            path: the path as sent, not decoded.

        Raises:
            Problem: ``not-found``, or ``method-not-allowed`` with the methods in ``Allow``.
        """
        segments = path.removeprefix(PREFIX).split("/")
        matching = list(self._matching(segments))
        if not matching:
            raise Problem("not-found")
        wanted = "GET" if method == "HEAD" else method
        for route, parameters in matching:
            if route.method == wanted:
                return route, {name: read_segment(each) for name, each in parameters.items()}
        methods = {route.method for route, _ in matching}
        if "GET" in methods:
            methods.add("HEAD")
        raise Problem("method-not-allowed", headers={"Allow": ", ".join(sorted(methods))})

    def _matching(self, segments: list[str]) -> Iterator[Found]:
        for pattern, route in self._routes:
            if len(pattern) != len(segments):
                continue
            parameters: dict[str, str] = {}
            for expected, segment in zip(pattern, segments, strict=True):
                if expected.startswith("{"):
                    parameters[expected[1:-1]] = segment
                elif expected != segment:
                    break
            else:
                yield route, parameters
