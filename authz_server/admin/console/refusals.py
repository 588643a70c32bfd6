"""The pages for requests of browsers that are refused before a page has them."""

from werkzeug.http import parse_cookie

from authz_server.admin.console.languages import LANGUAGE_COOKIE, choose_language, texts_in
from authz_server.admin.console.rendering import render
from authz_server.admin.console.views import SECURITY_HEADERS
from authz_server.admin.problems import ProblemResponses
from authz_server.endpoints.errors import ErrorRenderer
from authz_server.endpoints.request import Request
from authz_server.endpoints.responses import Answer
from authz_server.errors import OAuthError

_NOT_FOUND, _NOT_ALLOWED, _TOO_LARGE, _TOO_LONG, _UNAVAILABLE = 404, 405, 413, 414, 503
_KEYS = {
    # The address is not that of a page, or only that of a form.
    _NOT_FOUND: "problem.not-found",
    _NOT_ALLOWED: "problem.not-found",
    _TOO_LARGE: "problem.body-too-large",
    _UNAVAILABLE: "problem.unavailable",
}
_FILES, _ACTS = "/files", "/act/"


class ConsoleRefusals(ProblemResponses):
    """Renders refusals of the requests of browsers as pages, and all others as problems.

    Among them are forms that are too large, and addresses that are too long or unknown.

    Args:
        retry_after_seconds: sent with a 503 that gives no other time.
    """

    def render(
        self,
        error: OAuthError,
        request: Request,
        request_id: str,
        renderer: ErrorRenderer | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Return the response for a refusal; the arguments are those of the base class."""
        answer = super().render(error, request, request_id, renderer, headers)
        if not _is_of_browser(request):
            return answer
        texts = texts_in(
            choose_language(
                parse_cookie(request.headers.get("cookie", "")).get(LANGUAGE_COOKIE, ""),
                request.headers.get("accept-language", ""),
            )
        )
        key = _KEYS.get(answer.status, "problem.invalid-request")
        if request.path == _FILES and answer.status == _TOO_LARGE:
            key = "files.too_large"
        elif error.status_code == _TOO_LONG:
            key = "problem.address-too-long"
        back = _FILES if request.path == _FILES else "/"
        text = render("unread.html", t=texts, sentence=texts(key), back=back, request_id=request_id)
        answer.headers |= SECURITY_HEADERS
        answer.headers |= {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Language": texts.language,
        }
        return Answer(answer.status, answer.headers, text.encode())


def _is_of_browser(request: Request) -> bool:
    """Return whether a page is expected: a form was sent, or an address was opened."""
    # A header that is too large is not read.
    if request.path.startswith((_FILES, _ACTS)) and (
        request.method == "POST" or not request.headers
    ):
        return True
    return "text/html" in request.headers.get("accept", "").lower()
