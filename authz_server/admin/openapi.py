"""The OpenAPI 3.1 document of the admin API, generated from its routes."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from authz_server import __version__
from authz_server.admin.approvals import Filed
from authz_server.admin.problems import PROBLEM_TYPE, PROBLEMS
from authz_server.admin.routes import PREFIX, Route
from authz_server.endpoints.json_bodies import JSON_TYPE
from authz_server.operations.admin_api import ADMIN_SCOPES
from authz_server.settings import Settings

_REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)\}")
_PROBLEM = {"$ref": "#/components/schemas/Problem"}
#: The statuses of refusals that every route may answer.
_ALWAYS = (400, 401, 403, 429, 503)
_BY_KIND = {
    "read": (404,),
    "create": (404, 409, 413, 415, 422),
    "change": (404, 409, 412, 413, 415, 422, 428),
    "order": (404, 409, 412, 413, 415, 422, 428),
}
_TAG_HEADER = {"ETag": {"description": "The tag of the item.", "schema": {"type": "string"}}}


def describe_api(routes: Iterable[Route], settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        routes: the routes.
        settings: the checked settings.
    """
    listed = tuple(routes)
    types = [
        Filed,
        *(
            kind
            for route in listed
            for kind in (route.answer, route.body, route.members, route.query)
        ),
    ]
    used = list(dict.fromkeys(kind for kind in types if kind is not None))
    references, components = msgspec.json.schema_components(used, ref_template=_REF)
    schemas = dict(zip(used, references, strict=True))
    paths: dict[str, Any] = {}
    for route in listed:
        described = _describe(route, schemas, components)
        paths.setdefault(f"{PREFIX}{route.path}", {})[route.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "authz-server admin API",
            "version": __version__,
            "description": "Every change accepts dry_run=true, and answers its diff.",
        },
        "servers": [{"url": settings.admin.url}],
        "security": [{"oauth2": []}],
        "paths": paths,
        "components": {
            "schemas": {**components, "Problem": _problem_schema()},
            "securitySchemes": {"oauth2": _security(settings)},
        },
    }


def _describe(
    route: Route, schemas: dict[type, dict[str, Any]], components: dict[str, Any]
) -> dict[str, Any]:
    scopes = [route.permission, *route.further] if route.permission else []
    # Each of several requirements is enough.
    security = [{"oauth2": [each]} for each in route.one_of] or [
        {"oauth2": scopes},
        *({"oauth2": [each]} for each in route.instead),
    ]
    described: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "security": security,
        "parameters": list(_parameters(route, schemas, components)),
        "responses": _responses(route, schemas),
    }
    if route.body is not None:
        described["requestBody"] = {
            "required": any(each.required for each in msgspec.structs.fields(route.body)),
            "content": {JSON_TYPE: {"schema": schemas[route.body]}},
        }
    return described


def _operation_id(route: Route) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "_", route.path).strip("_")
    return f"{route.method.lower()}_{words}"


def _parameters(
    route: Route, schemas: dict[type, dict[str, Any]], components: dict[str, Any]
) -> Iterable[dict[str, Any]]:
    for name in _PARAMETER.findall(route.path):
        schema = {"type": "string", "minLength": 1, "maxLength": 300}
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    query = components[schemas[route.query]["$ref"].rpartition("/")[2]]
    for name, schema in query.get("properties", {}).items():
        yield {"name": name, "in": "query", "required": False, "schema": schema}
    if route.kind in {"change", "order"}:
        text = "The ETag of the item that the change is based on, or *."
        yield _header("If-Match", text, required=True)
    elif route.kind == "create" and route.item is not None:
        text = "The ETag of the item that is replaced; without it, any state of it is."
        yield _header("If-Match", text)
    if route.repeat is not None:
        yield _header("Idempotency-Key", "A key of the request, which makes it safe to repeat.")


def _header(name: str, description: str, *, required: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": required,
        "description": description,
        "schema": {"type": "string"},
    }


def _responses(route: Route, schemas: dict[type, dict[str, Any]]) -> dict[str, Any]:
    of_body = () if route.body is None else (413, 415, 422)
    of_condition = () if route.item is None or route.kind == "read" else (412,)
    statuses = sorted({*_ALWAYS, *_BY_KIND[route.kind], *of_body, *of_condition})
    success: dict[str, Any] = {
        "description": route.summary,
        "content": {JSON_TYPE: {"schema": _answer_schema(route, schemas)}},
    }
    if route.item is not None:
        success["headers"] = _TAG_HEADER
    answers = {str(route.status): success}
    if route.changes:
        content = {JSON_TYPE: {"schema": schemas[Filed]}}
        answers["202"] = {"description": "The change waits for an approval.", "content": content}
    if route.kind == "create":
        # A dry run, and the repetition of a request.
        answers["200"] = success
    titles = dict(PROBLEMS.values())
    for status in statuses:
        content = {PROBLEM_TYPE: {"schema": _PROBLEM}}
        answers[str(status)] = {"description": titles[status], "content": content}
    return answers


def _answer_schema(route: Route, schemas: dict[type, dict[str, Any]]) -> dict[str, Any]:
    item = schemas[route.answer]
    if route.lists:
        page = {
            "type": "object",
            "required": ["items", "next"],
            "properties": {
                "items": {"type": "array", "items": item},
                "next": {"type": ["string", "null"]},
            },
        }
        return page if route.members is None else {"allOf": [page, schemas[route.members]]}
    if not route.changes:
        return item
    change = {
        "type": "object",
        "required": ["diff", "dry_run"],
        "properties": {"diff": {}, "dry_run": {"type": "boolean"}},
    }
    further = [] if route.members is None else [schemas[route.members]]
    return {"allOf": [item, *further, change]}


def _problem_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "RFC 9457",
        "required": ["type", "title", "status", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "field": {"type": "string"},
            "scope": {"type": "string"},
            "request_id": {"type": "string"},
        },
    }


def _security(settings: Settings) -> dict[str, Any]:
    scopes = {name: description for name, _, description in ADMIN_SCOPES}
    token_url = f"{settings.issuer}/oauth2/token"
    return {
        "type": "oauth2",
        "flows": {"clientCredentials": {"tokenUrl": token_url, "scopes": scopes}},
    }
