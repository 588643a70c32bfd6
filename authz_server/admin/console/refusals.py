"""The pages for forms that are refused before they are read."""

from werkzeug.http import parse_cookie

from authz_server.admin.console.languages import LANGUAGE_COOKIE, choose_language, texts_in
from authz_server.admin.console.rendering import render
from authz_server.admin.console.views import SECURITY_HEADERS
from authz_server.admin.problems import ProblemResponses
from authz_server.endpoints.errors import ErrorRenderer
from authz_server.endpoints.request import Request
from authz_server.endpoints.responses import Answer
from authz_server.errors import OAuthError

_TOO_LARGE, _UNAVAILABLE = 413, 503
_FILES, _ACTS = "/files", "/act/"


class ConsoleRefusals(ProblemResponses):
    """Renders refusals of the console's forms as pages, and all others as problems.

    A form is refused if it is too large, or if too many large ones are under way.

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
        is_form = request.method == "POST" and request.path.startswith((_FILES, _ACTS))
        if not is_form or answer.status not in {_TOO_LARGE, _UNAVAILABLE}:
            return answer
        texts = texts_in(
            choose_language(
                parse_cookie(request.headers.get("cookie", "")).get(LANGUAGE_COOKIE, ""),
                request.headers.get("accept-language", ""),
            )
        )
        key = "files.too_large" if request.path == _FILES else "problem.body-too-large"
        if answer.status == _UNAVAILABLE:
            key = "problem.unavailable"
        back = _FILES if request.path == _FILES else "/"
        text = render("unread.html", t=texts, sentence=texts(key), back=back, request_id=request_id)
        answer.headers |= SECURITY_HEADERS
        answer.headers |= {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Language": texts.language,
        }
        return Answer(answer.status, answer.headers, text.encode())
