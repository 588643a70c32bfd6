"""The skin for Starlette and FastAPI."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route

from authz_verifier.asgi import Application, Receive, Scope, Send, event_receiver, read_request
from authz_verifier.context import current_token, serving
from authz_verifier.errors import Refusal
from authz_verifier.responses import Response
from authz_verifier.tokens import Token
from authz_verifier.verifier import AsyncVerifier

__all__ = ["current_token", "protect", "receive_events", "requires"]

_ADDED = "authz_verifier_request"
#: The attribute of a guarded endpoint.
_SCOPES = "authz_verifier_scopes"
Endpoint = Callable[..., Any]


def protect(app: Starlette, verifier: AsyncVerifier) -> None:
    """Give an application its verifier, and serve the resource metadata (RFC 9728)."""
    app.state.authz_verifier = verifier

    async def refuse(_: Request, refusal: Exception) -> StarletteResponse:
        assert isinstance(refusal, Refusal)  # noqa: S101 - registered for it alone
        return _answer(verifier.respond(refusal))

    async def metadata(_: Request) -> StarletteResponse:
        endpoints = [getattr(route, "endpoint", None) for route in app.routes]
        scopes = {scope for each in endpoints for scope in getattr(each, _SCOPES, ())}
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

        @wraps(endpoint)
        async def guarded(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the endpoint's own
            connection = kwargs[name] if name in kwargs else args[0]
            kwargs.pop(_ADDED, None)
            with serving(await _authenticate(connection, scopes)):
                if inspect.iscoroutinefunction(endpoint):
                    return await endpoint(*args, **kwargs)
                return await run_in_threadpool(endpoint, *args, **kwargs)

        if name == _ADDED:
            added = inspect.Parameter(_ADDED, inspect.Parameter.KEYWORD_ONLY, annotation=Request)
            parameters = [*signature.parameters.values(), added]
            signature = signature.replace(parameters=parameters)
        guarded.__signature__ = signature  # type: ignore[attr-defined] # read by FastAPI
        setattr(guarded, _SCOPES, scopes)
        return guarded

    return guard


async def _authenticate(connection: HTTPConnection, scopes: tuple[str, ...]) -> Token:
    verifier: AsyncVerifier = connection.app.state.authz_verifier
    request = read_request(connection.scope, verifier)
    return await verifier.authenticate(request, *scopes)


def _request_parameter(signature: inspect.Signature) -> str:
    """Return the name of the endpoint's request, or of the one to add for FastAPI."""
    for parameter in signature.parameters.values():
        if parameter.name == "request" or parameter.annotation in (Request, "Request"):
            return parameter.name
    return _ADDED


def _answer(response: Response) -> StarletteResponse:
    answer = StarletteResponse(response.body, response.status)
    for name, value in response.headers:
        answer.headers.append(name, value)
    return answer
