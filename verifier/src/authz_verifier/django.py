"""The skin for Django. The setting `AUTHZ_VERIFIER` holds the verifier.

Add `*metadata_urls()` to `urlpatterns` to serve the resource metadata (RFC 9728).
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.views.decorators.csrf import csrf_exempt

from authz_verifier.context import current_token, serving
from authz_verifier.errors import Refusal
from authz_verifier.events import MAXIMUM_EVENT_CHARACTERS
from authz_verifier.requests import Request
from authz_verifier.responses import Response
from authz_verifier.tokens import Token
from authz_verifier.verifier import Verifier

__all__ = ["current_token", "event_urls", "metadata_urls", "requires"]

_SHARED = "WWW-Authenticate"
#: The scopes of all guarded views, for the resource metadata.
_scopes: set[str] = set()

View = Callable[..., Any]


def requires(*scopes: str) -> Callable[[View], View]:
    """Return a decorator of a view that serves only requests with these scopes.

    The view is exempt from CSRF checks, which concern cookies. On a class of views it stands as
    `@method_decorator(requires(...), name="dispatch")`.
    """
    _scopes.update(scopes)

    def guard(view: View) -> View:
        if _is_async(view):

            @wraps(view)
            async def guarded_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
                found = await sync_to_async(_authenticate, thread_sensitive=False)(request, scopes)
                if isinstance(found, HttpResponse):
                    return found
                with serving(found):
                    return await view(request, *args, **kwargs)

            return _without_csrf(guarded_async)

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            found = _authenticate(request, scopes)
            if isinstance(found, HttpResponse):
                return found
            with serving(found):
                return view(request, *args, **kwargs)

        return _without_csrf(guarded)

    return guard


def _is_async(view: View) -> bool:
    """Return whether a view is awaited; `dispatch` of a class with async methods is a function."""
    of_class = getattr(getattr(view, "func", None), "__self__", None)
    return iscoroutinefunction(view) or bool(getattr(of_class, "view_is_async", False))


def _without_csrf(view: View) -> View:
    exempt: View = csrf_exempt(view)
    return exempt


def metadata_urls() -> list[URLPattern]:
    """Return the URL patterns of the resource metadata (RFC 9728)."""
    well_known: str = settings.AUTHZ_VERIFIER.responses.resource_metadata_path
    return [path(well_known.removeprefix("/"), _metadata)] if well_known else []


def event_urls(url: str = "security-events") -> list[URLPattern]:
    """Return the URL patterns of the receiver of pushed security events (RFC 8935)."""
    return [path(url, _without_csrf(_receive_event))]


def _receive_event(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return HttpResponse(status=405, headers={"Allow": "POST"})
    verifier: Verifier = settings.AUTHZ_VERIFIER
    body = request.read(MAXIMUM_EVENT_CHARACTERS + 1)
    return _answer(verifier.receive_event(body, request.headers.get("Content-Type", "")))


def _authenticate(request: HttpRequest, scopes: tuple[str, ...]) -> Token | HttpResponse:
    """Return the token, or the response of a refused request."""
    verifier: Verifier = settings.AUTHZ_VERIFIER
    try:
        return verifier.authenticate(_read_request(request, verifier), *scopes)
    except Refusal as refusal:
        return _answer(verifier.respond(refusal))


def _read_request(request: HttpRequest, verifier: Verifier) -> Request:
    headers = request.headers
    header = verifier.settings.certificate_header
    return Request(
        method=request.method or "",
        # Django's own rules for the host and the scheme behind a proxy.
        url=request.build_absolute_uri(request.path),
        authorization=_values(headers.get("Authorization")),
        proofs=_values(headers.get("DPoP")),
        certificate=headers.get(header, "") if header else "",
    )


def _values(header: str | None) -> tuple[str, ...]:
    return () if header is None else (header,)


def _metadata(_: HttpRequest) -> HttpResponse:
    verifier: Verifier = settings.AUTHZ_VERIFIER
    return _answer(verifier.responses.metadata_response(sorted(_scopes)))


def _answer(response: Response) -> HttpResponse:
    answer = HttpResponse(response.body, status=response.status)
    for name, value in response.headers:
        # Django keeps one header of a name; RFC 9110, 11.6.1 lets challenges share one.
        answer[name] = f"{answer[name]}, {value}" if name in answer and name == _SHARED else value
    return answer
