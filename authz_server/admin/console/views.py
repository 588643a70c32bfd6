"""One request to the console, as its pages see it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Response
from werkzeug.datastructures import FileStorage

from authz_server.admin.console.desk import Desk, RefusedError
from authz_server.admin.console.languages import LANGUAGES, Texts
from authz_server.admin.console.rendering import link, render
from authz_server.operations.declarative.limits import READS, WRITES

#: The policy of every page: nothing but our own style, script and forms.
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # A form sends its origin, by which the server knows that it is its own.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
#: The screens in their order, with the permissions one of which each needs.
SCREENS = (
    ("now", "/", ("",)),
    ("clients", "/clients", ("clients:read",)),
    ("apis", "/apis", ("scopes:read",)),
    ("keys", "/keys", ("keys:read",)),
    ("tokens", "/tokens", ("clients:read",)),
    ("audit", "/audit", ("audit:read",)),
    ("changes", "/changes", ("changes:read",)),
    ("files", "/files", (*READS.values(), *WRITES.values())),
    ("operators", "/operators", ("operators:read",)),
    ("settings", "/settings", ("settings:read",)),
)
#: The longest path with which a log-in leads back to a page.
MAXIMUM_RETURN_CHARACTERS = 1_000
#: The screens that no operator with limits may open.
_OF_WHOLE_SERVER = frozenset({"keys", "operators", "settings"})
_SEE_OTHER = 303
_STEP_UP = "insufficient-user-authentication"


class LogInAgain(Exception):  # noqa: N818 - not an error
    """Ends a request whose operator has to log in again first.

    Args:
        path: the page to return to.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One request.

    Attributes:
        desk: the admin API, as the operator.
        texts: the texts in the language of the page.
        screen: the name of the screen.
        method: the method of the request.
        path: its path.
        arguments: the parameters of its query string, the first of each name.
        form: the fields of its form, likewise.
        uploads: returns the files of a field of its form.
        issuer: the issuer that is administered.
        now: the present time.
        break_glass: whether an act that waits may be done at once.
        csrf_token: returns the token of the forms.
        require_own_form: requires that a write comes from a form of this session.
    """

    desk: Desk
    texts: Texts
    screen: str
    method: str
    path: str
    arguments: Mapping[str, str]
    form: Mapping[str, str]
    uploads: Callable[[str], list[FileStorage]]
    issuer: str
    now: datetime
    break_glass: bool
    csrf_token: Callable[[], str]
    require_own_form: Callable[[], None]

    def page(
        self,
        template: str,
        *,
        status: int = 200,
        address: str = "",
        **values: Any,  # noqa: ANN401 - values of templates
    ) -> Response:
        """Return a page.

        Args:
            template: its template.
            status: the HTTP status.
            address: what shows it in another language; empty: the address of the request.
            values: the values of the template.
        """
        done = self.arguments.get("done", "")
        text = render(
            template,
            t=self.texts,
            screens=[each for each in SCREENS if self._shows(*each)],
            screen=self.screen,
            languages=[
                (tag, name, in_language(address or self._address(), tag))
                for tag, name in LANGUAGES.items()
            ],
            caller=self.desk.caller,
            may=self.desk.may,
            issuer=self.issuer,
            now=self.now,
            break_glass=self.break_glass,
            csrf_token=self.csrf_token(),
            arguments=self.arguments,
            done=self.texts.find(f"done.{done}", "") if done else "",
            **values,
        )
        return html(text, status, self.texts.language)

    def _shows(self, screen: str, _: str, permissions: tuple[str, ...]) -> bool:
        """Return whether a screen is linked: some concern the whole server."""
        found = [self.desk.caller.limits_for(each) for each in permissions]
        held = [limits for limits in found if limits is not None]
        return bool(held) and not (screen in _OF_WHOLE_SERVER and all(held))

    def log_in_again(self, refusal: RefusedError, path: str) -> None:
        """Send the operator to log in again if the API asked for that.

        Raises:
            LogInAgain: it did.
        """
        if refusal.problem == _STEP_UP:
            raise LogInAgain(path)

    def _address(self) -> str:
        """Return the address of the request, without what only this answer has."""
        given = {
            name: each for name, each in self.arguments.items() if name not in {"lang", "done"}
        }
        return link(self.path, **given)


def in_language(address: str, tag: str) -> str:
    """Return the address of a page in another language."""
    return f"{address}{'&' if '?' in address else '?'}lang={tag}"


def html(text: str, status: int, language: str) -> Response:
    """Return a response with a page."""
    answer = Response(text, status=status, content_type="text/html; charset=utf-8")
    answer.headers.update(SECURITY_HEADERS)
    answer.headers["Content-Language"] = language
    answer.headers["Vary"] = "Accept-Language, Cookie"
    return answer


def redirection(path: str) -> Response:
    """Return a redirection by GET to a path of this listener."""
    answer = Response("", status=_SEE_OTHER, content_type="text/plain; charset=utf-8")
    answer.headers.update(SECURITY_HEADERS)
    answer.headers["Location"] = path
    return answer
