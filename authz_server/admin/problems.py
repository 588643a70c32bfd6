"""Problem details for every refusal of the admin API (RFC 9457)."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import msgspec
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from authz_server.endpoints.errors import ErrorRenderer, ErrorResponses, as_refusal
from authz_server.endpoints.request import Request
from authz_server.endpoints.responses import Answer, private_bytes
from authz_server.errors import (
    ConflictError,
    InvalidChangeError,
    NotFoundError,
    OAuthError,
    OperatorError,
)
from authz_server.operations.approvals import StaleChangeError
from authz_server.operations.permissions import AuthenticationTooOldError
from authz_server.operations.second_person import LogInAgainError
from authz_server.settings import SettingsError
from keys.errors import ClockOffError, InvariantError, KeysError, OrderRefusedError

PROBLEM_TYPE = "application/problem+json"
#: Before the name of a problem in its ``type``.
TYPE_PREFIX = "urn:authz-server:problem:"

#: The problems: by name, their status and title.
PROBLEMS: dict[str, tuple[int, str]] = {
    "invalid-request": (400, "The request is malformed"),
    "invalid-cursor": (400, "The cursor is not one of this list"),
    "invalid-token": (401, "A valid access token for the admin API is required"),
    "invalid-dpop-proof": (401, "A valid DPoP proof is required"),
    "insufficient-scope": (403, "The access token does not have the required scope"),
    # RFC 9470, 3.
    "insufficient-user-authentication": (401, "A more recent log-in is required"),
    "refused": (403, "The change is not permitted"),
    "not-found": (404, "There is nothing at this address"),
    "method-not-allowed": (405, "This method is not allowed here"),
    "conflict": (409, "The change conflicts with the present state"),
    "precondition-failed": (412, "The item was changed meanwhile"),
    "body-too-large": (413, "The request body is too large"),
    "unsupported-media-type": (415, "A JSON object is required"),
    "invalid-value": (422, "A value breaks a rule"),
    "idempotency-key-reused": (422, "The idempotency key belongs to another request"),
    "precondition-required": (428, "If-Match is required"),
    "too-many-requests": (429, "Too many requests: wait before trying again"),
    "unavailable": (503, "The server cannot answer right now: try again"),
}
_BY_STATUS = {
    HTTPStatus.NOT_FOUND: "not-found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method-not-allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body-too-large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "unsupported-media-type",
    HTTPStatus.TOO_MANY_REQUESTS: "too-many-requests",
    HTTPStatus.FORBIDDEN: "refused",
}
#: The problems of the refusals of operations; of others it is ``refused``.
_BY_ERROR: dict[type[OperatorError], str] = {
    NotFoundError: "not-found",
    ConflictError: "conflict",
    StaleChangeError: "precondition-failed",
    AuthenticationTooOldError: "insufficient-user-authentication",
    LogInAgainError: "insufficient-user-authentication",
}

_encode = msgspec.json.Encoder().encode


@dataclass(eq=False)
class Problem(Exception):  # noqa: N818 - named as in RFC 9457
    """A refused request.

    Attributes:
        name: a key of :data:`PROBLEMS`.
        detail: the explanation of this occurrence, for the caller.
        headers: further headers of the response.
        members: further members of the body.
    """

    name: str
    detail: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    members: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return PROBLEMS[self.name][0]


def as_problem(  # noqa: PLR0911 - one for each kind of fault
    fault: Exception, retry_after_seconds: int
) -> Problem:
    """Return the problem to send for an exception; unexpected ones are logged.

    Args:
        fault: the exception.
        retry_after_seconds: sent with a 503 that gives no other time.
    """
    match fault:
        case Problem():
            return fault
        case InvalidChangeError():
            return Problem("invalid-value", str(fault), members=_field(str(fault)))
        case OverflowError():
            return Problem("invalid-value", "A time or a number is out of range.")
        case OperatorError():
            names = (name for kind, name in _BY_ERROR.items() if isinstance(fault, kind))
            return Problem(next(names, "refused"), str(fault))
        case OrderRefusedError() | ClockOffError() | InvariantError():
            return Problem("conflict", str(fault))
        case KeysError() | SettingsError():
            return _unavailable(retry_after_seconds, str(fault))
        case IntegrityError() if _is_race(fault):
            return Problem("conflict", "Another request made or deleted the same meanwhile.")
        case OAuthError() | SQLAlchemyError():
            return _of_refusal(as_refusal(fault), retry_after_seconds)
    as_refusal(fault)
    return _unavailable(retry_after_seconds)


def render_problem(problem: Problem, request_id: str) -> Answer:
    """Return the response for a problem."""
    status, title = PROBLEMS[problem.name]
    body = {
        "type": f"{TYPE_PREFIX}{problem.name}",
        "title": title,
        "status": status,
        **({"detail": problem.detail} if problem.detail else {}),
        **problem.members,
        "request_id": request_id,
    }
    return private_bytes(_encode(body), PROBLEM_TYPE, request_id, status, problem.headers)


class ProblemResponses(ErrorResponses):
    """Renders refusals outside of the routes as problem details.

    Args:
        retry_after_seconds: sent with a 503 that gives no other time.
    """

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(retry_after_seconds)
        self._seconds = retry_after_seconds

    def render(
        self,
        error: OAuthError,
        request: Request,
        request_id: str,
        renderer: ErrorRenderer | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Return the response for a refusal; the arguments are those of the base class."""
        del request, renderer
        problem = _of_refusal(error, self._seconds)
        problem.headers.update(headers or {})
        return render_problem(problem, request_id)


def _of_refusal(error: OAuthError, retry_after_seconds: int) -> Problem:
    status = HTTPStatus(int(error.status_code))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _unavailable(error.retry_after_seconds or retry_after_seconds)
    return Problem(_BY_STATUS.get(status, "invalid-request"), error.description)


def _is_race(fault: IntegrityError) -> bool:
    """Return whether two transactions made the same row, or one refers to a deleted one."""
    state = getattr(fault.orig, "sqlstate", None)
    if state is not None:
        return state in {"23503", "23505"}
    return str(fault.orig).startswith(("UNIQUE constraint", "FOREIGN KEY constraint"))


def _unavailable(seconds: int, detail: str = "") -> Problem:
    return Problem("unavailable", detail, headers={"Retry-After": str(seconds)})


def _field(message: str) -> dict[str, Any]:
    """Return the field that the message of an InvalidChangeError begins with."""
    name, colon, _ = message.partition(":")
    return {"field": name} if colon and name.isidentifier() else {}
