"""Headers and error responses shared by the operations of the OpenAPI document."""

from typing import Any

from authz_server.endpoints.openapi_schemas import reference
from authz_server.errors import REASONS

Part = dict[str, Any]

_REQUEST_ID = "X-Request-Id"
_NO_STORE = ("Cache-Control", "Pragma", "X-Content-Type-Options", _REQUEST_ID)
#: The error responses of an endpoint that takes a form, by status.
_REFUSALS = {
    400: "The request breaks a rule.",
    401: "The client could not be authenticated.",
    403: "A policy of this installation refuses.",
    405: "Another method was used at this address.",
    408: "The request did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not a form in UTF-8.",
    417: "An expectation other than 100-continue was sent.",
    429: "Too many failed authentications of this client from this address.",
    431: "The header is too large.",
    503: "The server or a service that it depends on is unavailable.",
}
_PRECONDITION_FAILED = 412
_FURTHER_HEADERS = {401: ("WWW-Authenticate",), 405: ("Allow",), 429: ("Retry-After",)}
_FURTHER_HEADERS[503] = ("Retry-After",)
_TOKEN_ONLY = frozenset({403})


def headers() -> dict[str, Part]:
    """Return every named header."""
    return {
        "Cache-Control": _header({"const": "no-store"}),
        "Pragma": _header({"const": "no-cache"}),
        "X-Content-Type-Options": _header({"const": "nosniff"}),
        _REQUEST_ID: _header(
            {"type": "string", "pattern": "^[A-Za-z0-9_-]{16}$"}, "Names this request in records."
        ),
        "WWW-Authenticate": _header(
            {"type": "string"}, "Where an Authorization header was sent.", required=False
        ),
        "Retry-After": _header({"type": "integer", "minimum": 1}, "Seconds."),
        "Allow": _header({"type": "string"}, "The methods of this address."),
        "message_id": _header(
            {"type": "string"}, "The request's, where it was well-formed.", required=False
        ),
        "Content-Language": _header({"type": "string"}, "Of `errors[].message`."),
        "ETag": _header(
            {"type": "string", "pattern": '^"[^"]+"$'},
            "Where the document may be kept.",
            required=False,
        ),
        "Public-Cache-Control": _header(
            {"type": "string", "pattern": "^(public, max-age=[1-9][0-9]*|no-store)$"},
            "`no-store` where the Host is not one of this server's.",
        ),
        "Access-Control-Allow-Origin": _header({"const": "*"}),
    }


def header_references(*names: str) -> dict[str, Part]:
    """Return references to headers, by the name in the response."""
    return {
        name.removeprefix("Public-"): {"$ref": f"#/components/headers/{name}"} for name in names
    }


def private_headers(*further: str) -> dict[str, Part]:
    """Return the headers of a response that must not be cached, and further ones."""
    return header_references(*_NO_STORE, *further)


def public_headers() -> dict[str, Part]:
    """Return the headers of a public document."""
    return header_references(
        "Public-Cache-Control",
        "ETag",
        "Access-Control-Allow-Origin",
        "X-Content-Type-Options",
        _REQUEST_ID,
    )


def refusal_responses(*, g2p: bool) -> dict[str, Part]:
    """Return every named error response: one per status, and those of the G2P Connect profile."""
    shared = _REFUSALS | {_PRECONDITION_FAILED: "The document has changed."}
    named = {_name(status): _refusal(status, words) for status, words in shared.items()}
    if g2p:
        further = ("message_id", "Content-Language")
        for status, words in _REFUSALS.items():
            named[_name(status, "G2P")] = _refusal(status, words, "G2PError", further)
    return named


def form_refusals(*, g2p: bool = False, token: bool = False) -> dict[str, Part]:
    """Return the error responses of an endpoint that takes a form, by status."""
    statuses = [status for status in _REFUSALS if token or status not in _TOKEN_ONLY]
    return {str(status): _response(status, "G2P" if g2p else "") for status in statuses}


def document_refusals(*statuses: int) -> dict[str, Part]:
    """Return the error responses of these statuses."""
    return {str(status): _response(status) for status in statuses}


def _header(schema: Part, description: str = "", *, required: bool = True) -> Part:
    found: Part = {"required": required, "schema": schema}
    return found | {"description": description} if description else found


def _refusal(
    status: int, description: str, schema: str = "Error", further: tuple[str, ...] = ()
) -> Part:
    codes = sorted({reason.error for reason in REASONS.values() if reason.status == status})
    listed = {"type": "object", "properties": {"error": {"enum": codes}}}
    return {
        "description": description,
        "headers": private_headers(*_FURTHER_HEADERS.get(status, ()), *further),
        "content": {"application/json": {"schema": {"allOf": [reference(schema), listed]}}},
    }


def _name(status: int, profile: str = "") -> str:
    return f"{profile}Refusal{status}"


def _response(status: int, profile: str = "") -> Part:
    return {"$ref": f"#/components/responses/{_name(status, profile)}"}
