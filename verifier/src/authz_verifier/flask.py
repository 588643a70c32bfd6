"""The skin for Flask."""

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import ParamSpec, TypeVar, cast

import flask

from authz_verifier.context import current_token, mark_guarded, scopes_of, serving
from authz_verifier.errors import Refusal
from authz_verifier.responses import Response
from authz_verifier.verifier import Verifier
from authz_verifier.wsgi import read_event, read_request

__all__ = ["current_token", "protect", "receive_events", "requires"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_EXTENSION = "authz_verifier"


def protect(app: flask.Flask, verifier: Verifier) -> None:
    """Give an application its verifier, and serve the resource metadata (RFC 9728)."""
    app.extensions[_EXTENSION] = verifier

    def refuse(refusal: Refusal) -> flask.Response:
        return _answer(verifier.respond(refusal))

    def metadata() -> flask.Response:
        views = app.view_functions.values()
        scopes = {scope for view in views for scope in scopes_of(view) or ()}
        return _answer(verifier.responses.metadata_response(sorted(scopes)))

    def check() -> None:
        scopes_of(app.view_functions.get(flask.request.endpoint or ""))

    app.before_request(check)
    app.register_error_handler(Refusal, refuse)
    if path := verifier.responses.resource_metadata_path:
        app.add_url_rule(path, "authz_verifier_metadata", metadata)


def receive_events(app: flask.Flask, path: str = "/security-events") -> None:
    """Receive pushed security events (RFC 8935) at a path; call it after `protect`."""
    verifier: Verifier = app.extensions[_EXTENSION]

    def receive() -> flask.Response:
        body = read_event(flask.request.environ)
        return _answer(verifier.receive_event(body, flask.request.content_type or ""))

    app.add_url_rule(path, "authz_verifier_events", receive, methods=["POST"])


def requires(*scopes: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Return a decorator of a view that serves only requests with these scopes."""

    def guard(view: Callable[_P, _R]) -> Callable[_P, _R]:
        is_async = iscoroutinefunction(view)

        @wraps(view)
        def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            verifier: Verifier = flask.current_app.extensions[_EXTENSION]
            request = read_request(flask.request.environ, verifier)
            try:
                token = verifier.authenticate(request, *scopes)
            except Refusal as refusal:
                # Not raised: a blueprint's handler of exceptions would answer instead.
                return cast("_R", _answer(verifier.respond(refusal)))
            with serving(token):
                if not is_async:
                    return view(*args, **kwargs)
                answer: _R = flask.current_app.ensure_sync(view)(*args, **kwargs)
                return answer

        mark_guarded(guarded, view, scopes)
        return guarded

    return guard


def _answer(response: Response) -> flask.Response:
    return flask.Response(response.body, response.status, list(response.headers))
