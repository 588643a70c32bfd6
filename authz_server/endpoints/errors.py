"""Turn refusals and unexpected exceptions into HTTP responses."""

import logging
from collections.abc import Callable, Mapping
from time import monotonic

from flask import Flask
from flask import request as flask_request
from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError
from werkzeug.exceptions import HTTPException

from authz_server.database.errors import describe_failure
from authz_server.endpoints.request import Request
from authz_server.endpoints.responses import Answer, new_request_id, private_answer
from authz_server.endpoints.wsgi import FAULT, read_head
from authz_server.errors import OAuthError
from authz_server.logs import bind_request_id

logger = logging.getLogger(__name__)

_UNAUTHORIZED = 401
_SERVER_FAULT = 500

ErrorRenderer = Callable[[dict[str, object], OAuthError, Mapping[str, str]], str]


class ErrorResponses:
    """Renders refusals as RFC 6749 errors.

    A response never repeats the request or the text of a library.

    Args:
        retry_after_seconds: sent with a 503 whose error has no ``retry_after_seconds``.
    """

    def __init__(self, retry_after_seconds: int) -> None:
        self._retry_after_seconds = retry_after_seconds

    def render(
        self,
        error: OAuthError,
        request: Request,
        request_id: str,
        renderer: ErrorRenderer | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Return the response for a refusal.

        Args:
            error: the refusal.
            request: the refused request.
            request_id: the id of the request.
            renderer: adds a profile's members and returns the language of its message.
            headers: further headers.
        """
        status = int(error.status_code)
        body: dict[str, object] = {"error": error.error, "error_description": error.description}
        sent = dict(headers or {})
        if renderer is not None:
            sent["Content-Language"] = renderer(body, error, request.headers)
        if error.error == "invalid_token":
            # RFC 6750, 3.1: a request without a token gets no error code in the challenge.
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            is_sent = scheme.lower() == "bearer" and token.strip()
            code = ', error="invalid_token"' if is_sent else ""
            sent["WWW-Authenticate"] = f'Bearer realm="authz-server"{code}'
        elif status == _UNAUTHORIZED and request.headers.get("authorization"):
            # RFC 6749, 5.2
            sent["WWW-Authenticate"] = 'Basic realm="authz-server", charset="UTF-8"'
        if error.retry_after_seconds is not None:
            sent["Retry-After"] = str(error.retry_after_seconds)
        elif status >= _SERVER_FAULT:
            sent["Retry-After"] = str(self._retry_after_seconds)
        return private_answer(body, request_id, status=status, headers=sent)


class DatabaseLog:
    """Logs why the database failed requests: each reason at once, its repetitions once a second.

    An outage fails every request, and a line for each would take longer than the requests.
    """

    def __init__(self) -> None:
        self._reason = ""
        self._until = 0.0
        self._left_out = 0

    def note(self, reason: str) -> None:
        """Log a request that failed for this reason, now or in a count."""
        now = monotonic()
        if reason == self._reason and now < self._until:
            self._left_out += 1
            return
        if self._left_out:
            logger.error("the database failed %d more requests: %s", self._left_out, self._reason)
        self._reason, self._until, self._left_out = reason, now + 1.0, 0
        logger.error("the database failed a request: %s", reason)


_database_log = DatabaseLog()


def as_refusal(fault: Exception) -> OAuthError:
    """Return the error to send for an exception, and log the exception."""
    if isinstance(fault, OAuthError):
        return fault
    if isinstance(fault, SQLAlchemyError):
        # Other database errors may repeat values of the request.
        known = isinstance(fault, OperationalError | ProgrammingError)
        reason = describe_failure(fault) if known else type(fault).__name__
        _database_log.note(reason)
        return OAuthError("temporarily_unavailable")
    logger.error("unhandled exception in a request", exc_info=fault)
    return OAuthError("server_error")


def handle_everything_else(
    app: Flask,
    responses: ErrorResponses,
    renderers: Mapping[str, ErrorRenderer | None] | None = None,
) -> None:
    """Make ``app`` answer unknown paths and wrong methods in JSON.

    Args:
        app: the application.
        responses: renders refusals.
        renderers: by path, what adds a profile's members.
    """

    def renderer() -> ErrorRenderer | None:
        return (renderers or {}).get(flask_request.environ.get("PATH_INFO", ""))

    def received() -> Request:
        return read_head(flask_request.environ)

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Answer:
        request_id = _bound_request_id()
        reason = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(
            error.code or _SERVER_FAULT, "parameter_malformed"
        )
        allowed = getattr(error, "valid_methods", None)
        headers = {"Allow": ", ".join(sorted(allowed))} if allowed else None
        return responses.render(OAuthError(reason), received(), request_id, renderer(), headers)

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Answer:
        return responses.render(as_refusal(error), received(), _bound_request_id(), renderer())


def refuse_faulty() -> None:
    """Raise OAuthError for a request of a WSGI server whose header ``serve`` would refuse."""
    fault: OAuthError | None = flask_request.environ.get(FAULT)
    if fault is not None:
        raise fault


def _bound_request_id() -> str:
    request_id = new_request_id()
    bind_request_id(request_id)
    return request_id
