"""The skin for Starlette and FastAPI."""

import inspect
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response as StarletteResponse
from starlette.routing import BaseRoute, Match, Route
from starlette.websockets import WebSocket

from authz_verifier.asgi import Application, Receive, Scope, Send, event_receiver, read_request
from authz_verifier.context import current_token, mark_guarded, scopes_of, serving
from authz_verifier.errors import Refusal
from authz_verifier.responses import Response
from authz_verifier.tokens import Token
from authz_verifier.verifier import AsyncVerifier

__all__ = ["current_token", "protect", "receive_events", "requires"]

_ADDED = "authz_verifier_request"
#: What the middleware adds to the scope of a request.
_VERIFIER = "authz_verifier"
_CHECKED = "authz_verifier_checked"
_CONNECTIONS = (Request, WebSocket, HTTPConnection)
_NAMES = frozenset(each.__name__ for each in _CONNECTIONS)
Endpoint = Callable[..., Any]


def protect(app: Starlette, verifier: AsyncVerifier) -> None:
    """Give an application its verifier, and serve the resource metadata (RFC 9728).

    A request is refused before FastAPI reads its body. Mounted applications have the same
    verifier, unless they are protected themselves.

    Raises:
        RuntimeError: the application serves requests already.
    """
    app.state.authz_verifier = verifier
    if app.middleware_stack is not None:
        raise RuntimeError("protect the application before it serves requests")
    # The innermost one: a refusal gets the headers of the others, such as those of CORS.
    app.user_middleware.append(Middleware(_Guard, verifier=verifier, app_of_routes=app))

    async def refuse(_: Request, refusal: Exception) -> StarletteResponse:
        assert isinstance(refusal, Refusal)  # noqa: S101 - registered for it alone
        return _answer(verifier.respond(refusal))

    async def metadata(_: Request) -> StarletteResponse:
        endpoints = [getattr(route, "endpoint", None) for route in _flatten(app.routes)]
        scopes = {scope for each in endpoints for scope in scopes_of(each) or ()}
        return _answer(verifier.responses.metadata_response(sorted(scopes)))

    app.add_exception_handler(Refusal, refuse)
    if path := verifier.responses.resource_metadata_path:
        app.add_route(path, metadata, include_in_schema=False)


def receive_events(app: Starlette, path: str = "/security-events") -> None:
    """Receive pushed security events (RFC 8935) at a path; call it after `protect`."""
    receiver = _EventRoute(event_receiver(app.state.authz_verifier))
    app.router.routes.append(Route(path, receiver, methods=["POST"], include_in_schema=False))


class _EventRoute:
    """An ASGI application as the endpoint of a route; a class is not taken for a view."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application(scope, receive, send)


def requires(*scopes: str) -> Callable[[Endpoint], Endpoint]:
    """Return a decorator of an endpoint that serves only requests with these scopes.

    In FastAPI it stands below the route's decorator, like any decorator of Starlette.
    """

    def guard(endpoint: Endpoint) -> Endpoint:
        signature = inspect.signature(endpoint)
        name = _request_parameter(signature)
        is_async = inspect.iscoroutinefunction(endpoint)

        @wraps(endpoint)
        async def guarded(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the endpoint's own
            connection = _find_connection(kwargs.get(name), args)
            kwargs.pop(_ADDED, None)
            try:
                token = await _authenticate(connection, scopes)
            except Refusal as refusal:
                return await _refuse(connection, refusal)
            with serving(token):
                if is_async:
                    return await endpoint(*args, **kwargs)
                return await run_in_threadpool(endpoint, *args, **kwargs)

        if name == _ADDED:
            signature = _with_connection(signature)
        guarded.__signature__ = signature  # type: ignore[attr-defined] # read by FastAPI
        mark_guarded(guarded, endpoint, scopes)
        return guarded

    return guard


async def _authenticate(connection: HTTPConnection, scopes: tuple[str, ...]) -> Token:
    checked, token = connection.scope.get(_CHECKED, (None, None))
    if checked == scopes and isinstance(token, Token):
        return token
    verifier: AsyncVerifier = connection.scope[_VERIFIER]
    request = read_request(connection.scope, verifier)
    return await verifier.authenticate(request, *scopes)


async def _refuse(connection: HTTPConnection, refusal: Refusal) -> StarletteResponse | None:
    """Return the response; here, as a mounted application lacks the handler of exceptions."""
    if isinstance(connection, WebSocket):
        await connection.close(1008)
        return None
    verifier: AsyncVerifier = connection.scope[_VERIFIER]
    return _answer(verifier.respond(refusal))


class _Guard:
    """Middleware that refuses a request before its body is read."""

    def __init__(
        self, app: Application, *, verifier: AsyncVerifier, app_of_routes: Starlette
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._routes = app_of_routes.routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_VERIFIER] = self._verifier
        scopes = _scopes_of(self._routes, scope) if scope["type"] != "lifespan" else None
        if scopes is not None and scope["type"] == "http":
            try:
                token = await self._verifier.authenticate(
                    read_request(scope, self._verifier), *scopes
                )
            except Refusal as refusal:
                await _answer(self._verifier.respond(refusal))(scope, receive, send)
                return
            scope[_CHECKED] = scopes, token
        await self._app(scope, receive, send)


def _scopes_of(routes: Iterable[BaseRoute], scope: Scope) -> tuple[str, ...] | None:
    """Return the scopes of the route that will serve a request.

    None if it is not guarded here: a mounted application with a verifier of its own guards itself.
    """
    for route in routes:
        match, child = route.matches(scope)
        if match is Match.FULL:
            endpoint = getattr(route, "endpoint", None)
            if endpoint is not None:
                return scopes_of(endpoint)
            if _has_verifier(route):
                return None
            return _scopes_of(_routes_within(route), {**scope, **child})
    return None


def _has_verifier(route: BaseRoute) -> bool:
    """Return whether a mounted application is protected itself."""
    # Starlette wraps `app` into the middleware of the mount.
    app = getattr(route, "_base_app", getattr(route, "app", None))
    return isinstance(app, Starlette) and hasattr(app.state, "authz_verifier")


def _routes_within(route: BaseRoute) -> Iterable[BaseRoute]:
    """Return the routes of a mounted application, or of an included router."""
    mounted: Iterable[BaseRoute] | None = getattr(route, "routes", None)
    return [each for each in _flatten([route]) if each is not route] if mounted is None else mounted


def _flatten(routes: Iterable[BaseRoute]) -> Iterable[BaseRoute]:
    """Return the routes with those of included routers, which FastAPI keeps as a part."""
    module = sys.modules.get("fastapi.routing")
    flatten = getattr(module, "iter_route_contexts", list)
    flat: Iterable[BaseRoute] = flatten(routes)
    return flat


def _find_connection(named: object, args: tuple[Any, ...]) -> HTTPConnection:
    """Return the request or websocket among the arguments of an endpoint or its method."""
    connection: HTTPConnection = next(
        each for each in (named, *args) if isinstance(each, HTTPConnection)
    )
    return connection


def _with_connection(signature: inspect.Signature) -> inspect.Signature:
    """Return a signature by which FastAPI gives the request or the websocket too."""
    added = inspect.Parameter(_ADDED, inspect.Parameter.KEYWORD_ONLY, annotation=HTTPConnection)
    parameters = list(signature.parameters.values())
    at = len(parameters)
    if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
        at -= 1
    return signature.replace(parameters=[*parameters[:at], added, *parameters[at:]])


def _request_parameter(signature: inspect.Signature) -> str:
    """Return the name of the endpoint's request, or of the one to add for FastAPI."""
    for parameter in signature.parameters.values():
        annotation = parameter.annotation
        if annotation in _CONNECTIONS:
            return parameter.name
        if isinstance(annotation, str) and annotation.rpartition(".")[2] in _NAMES:
            return parameter.name
    return _ADDED


def _answer(response: Response) -> StarletteResponse:
    answer = StarletteResponse(response.body, response.status)
    for name, value in response.headers:
        answer.headers.append(name, value)
    return answer
