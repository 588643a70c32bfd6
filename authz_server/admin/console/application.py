"""The routes of the console, which every operator with a session may follow."""

from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlencode

from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import HTTPException, NotFound

from authz_server.admin.api import AdminApi, Performed
from authz_server.admin.console.act_kinds import Values
from authz_server.admin.console.act_pages import resume_act, show_act
from authz_server.admin.console.desk import Desk, RefusedError
from authz_server.admin.console.languages import (
    LANGUAGE_COOKIE,
    LANGUAGES,
    choose_language,
    texts_in,
)
from authz_server.admin.console.pages import (
    apis,
    audit,
    changes,
    clients,
    files,
    keys,
    now,
    operators,
    tokens,
)
from authz_server.admin.console.pages import (
    settings as settings_page,
)
from authz_server.admin.console.sessions import Sessions
from authz_server.admin.console.views import LogInAgain, View, redirection
from authz_server.admin.problems import TYPE_PREFIX, Problem, as_problem
from authz_server.assembly import Clock
from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.endpoints.wsgi import read_head
from authz_server.operations.keys.calendar.svg import DARK_STYLE
from authz_server.settings import Settings

_STATIC = Path(__file__).parent / "static"
_COOKIE_SECONDS = 31_536_000
_STATIC_SECONDS = 3_600
_OWN_SITE = "same-origin"
_STATIC_TYPES = {
    "console.css": "text/css; charset=utf-8",
    "calendar.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

_OTHER_FORM = f"{TYPE_PREFIX}cross-site"

Page = Callable[[View], Response]
#: The name of a screen, or what chooses it by the parameters or the form of the request.
Screen = str | Callable[[Values], str]

#: The pages: for each path its screen, its methods and what shows it.
PAGES: Mapping[str, tuple[str, tuple[str, ...], Page]] = {
    "/": ("now", ("GET",), now.show),
    "/clients": ("clients", ("GET",), clients.show_list),
    "/clients/client": ("clients", ("GET",), clients.show),
    "/clients/registration": ("clients", ("GET",), clients.show_registration),
    "/clients/review": ("clients", ("GET",), clients.show_review),
    "/apis": ("apis", ("GET",), apis.show_list),
    "/apis/api": ("apis", ("GET",), apis.show),
    "/apis/scope": ("apis", ("GET",), apis.show_scope),
    "/keys": ("keys", ("GET",), keys.show),
    "/tokens": ("tokens", ("GET", "POST"), tokens.show),
    "/audit": ("audit", ("GET",), audit.show),
    "/audit/export": ("audit", ("GET",), audit.export),
    "/changes": ("changes", ("GET",), changes.show_list),
    "/changes/change": ("changes", ("GET",), changes.show),
    "/files": ("files", ("GET", "POST"), files.show),
    "/files/export": ("files", ("GET",), files.export),
    "/operators": ("operators", ("GET",), operators.show_list),
    "/operators/operator": ("operators", ("GET",), operators.show),
    "/settings": ("settings", ("GET",), settings_page.show),
}

#: The largest forms in bytes, by path, where they exceed the limit of the settings.
LARGER_FORMS: Mapping[str, int] = {"/files": files.MAXIMUM_FORM_BYTES}

#: The first words of the names of acts, by the screen that they belong to.
_NOUNS: Mapping[str, tuple[str, ...]] = {
    "clients": ("client", "secret", "registration"),
    "apis": ("api", "stop", "scope", "stream", "programme"),
    "keys": ("ring", "key"),
    "tokens": ("token",),
    "operators": ("operator", "passkey"),
}


class Console:
    """Answers requests to the console.

    Args:
        api: the admin API, which the console reads and writes by.
        sessions: finds the operator of a request.
        settings: the checked settings.
        clock: returns the present time, timezone-aware.
    """

    def __init__(self, api: AdminApi, sessions: Sessions, settings: Settings, clock: Clock) -> None:
        self._api = api
        self._sessions = sessions
        self._settings = settings
        self._clock = clock
        self._addresses = ClientAddressReader(
            settings.server.trusted_proxies, settings.server.forwarded_header
        )
        self._static = {name: _read_static(name) for name in _STATIC_TYPES}

    def add_to(self, app: Flask) -> None:
        """Add the pages, the acts and the static files to an application."""
        blueprint = Blueprint("console", __name__)
        for path, (screen, methods, page) in PAGES.items():
            blueprint.add_url_rule(
                path, endpoint=path, view_func=self._answering(screen, page), methods=methods
            )
        blueprint.add_url_rule(
            "/act/<name>", endpoint="act", view_func=self._act, methods=["GET", "POST"]
        )
        blueprint.add_url_rule("/static/<name>", endpoint="static", view_func=self._send_static)
        app.register_blueprint(blueprint)

    def _act(self, name: str) -> Response:
        return self._answering(partial(_screen_of, name), lambda view: show_act(view, name))()

    def _answering(self, screen: Screen, page: Page) -> Callable[[], Response]:
        def answer() -> Response:
            view = self._open(screen)
            if isinstance(view, Response):
                return view
            try:
                answered = page(view)
            except LogInAgain as again:
                answered = redirection(f"/login?{urlencode({'step_up': '1', 'next': again.path})}")
            except HTTPException:
                raise
            except RefusedError as refusal:
                answered = _refused(view, refusal.answer)
            except Exception as fault:  # noqa: BLE001 - every fault is answered by a page
                answered = _refused(view, _as_answer(fault, self._settings))
            _keep_language(answered)
            return answered

        return answer

    def _open(self, screen: Screen) -> View | Response:
        """Return the view of the request; without a session, a redirection to the log-in."""
        environ = request.environ
        caller = self._sessions.find_session(environ)
        if caller is None:
            return redirection(f"/login?{urlencode({'next': _page_of_request()})}")
        language = choose_language(
            request.args.get("lang") or request.cookies.get(LANGUAGE_COOKIE, ""),
            request.headers.get("Accept-Language", ""),
        )
        # Only a request with a session may have a larger form.
        if limit := LARGER_FORMS.get(request.path):
            limit = max(limit, self._settings.server.maximum_body_bytes)
            request.max_content_length = request.max_form_memory_size = limit
        # What is pasted into a search or a form often ends in a space.
        arguments = {name: value.strip() for name, value in request.args.items()}
        if request.headers.get("Sec-Fetch-Site", _OWN_SITE) != _OWN_SITE:
            # A link from elsewhere would report what was not done.
            arguments.pop("done", None)
        form = request.form.to_dict()
        if not isinstance(screen, str):
            screen = screen(form if request.method == "POST" else arguments)
        return View(
            desk=Desk(self._api, caller, self._addresses.read(read_head(environ))),
            texts=texts_in(language),
            screen=screen,
            method=request.method,
            path=request.path,
            arguments=arguments,
            form=form,
            uploads=request.files.getlist,
            issuer=self._settings.issuer,
            now=self._clock(),
            break_glass=self._settings.approvals.break_glass,
            csrf_token=lambda: self._sessions.csrf_token(environ),
            require_own_form=lambda: self._require_own_form(form),
        )

    def _require_own_form(self, form: Values) -> None:
        try:
            self._sessions.require_own_form(request.environ, form.get("csrf_token", ""))
        except Problem as problem:
            raise RefusedError(Performed(problem.status, {"type": _OTHER_FORM}, {})) from problem

    def _send_static(self, name: str) -> Response:
        content, tag = self._static.get(name, (b"", ""))
        if not tag:
            raise NotFound
        answer = Response(content, content_type=_STATIC_TYPES[name])
        answer.headers["Cache-Control"] = f"max-age={_STATIC_SECONDS}"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.set_etag(tag)
        answer.make_conditional(request)
        return answer


def _page_of_request() -> str:
    """Return the page of the request, or that of its form; a token or a file is sent again."""
    if request.method != "POST":
        return request.full_path.rstrip("?")
    if request.endpoint == "console.act":
        return resume_act(request.path.rpartition("/")[2], request.form.to_dict())
    return request.path


def _read_static(name: str) -> tuple[bytes, str]:
    path = DARK_STYLE if name == "calendar.css" else _STATIC / name
    content = path.read_bytes()
    return content, sha256(content).hexdigest()[:16]


def _screen_of(act: str, values: Values) -> str:
    """Return the screen of an act; that of a stop depends on the kind of what it stops."""
    if act in {"stop-set", "stop-lift"} and values.get("kind") == "client":
        return "clients"
    noun = act.partition("-")[0]
    return next((screen for screen, nouns in _NOUNS.items() if noun in nouns), "changes")


def _refused(view: View, answer: Performed) -> Response:
    # The address of a form need not be that of a page.
    address = "/" if view.method == "POST" else ""
    return view.page("refused.html", address=address, answer=answer, status=answer.status)


def _as_answer(fault: Exception, settings: Settings) -> Performed:
    problem = as_problem(fault, settings.server.retry_after_seconds)
    body = {"type": f"{TYPE_PREFIX}{problem.name}", "detail": problem.detail}
    return Performed(problem.status, body, problem.headers)


def _keep_language(answer: Response) -> None:
    chosen = request.args.get("lang", "")
    if chosen in LANGUAGES:
        answer.set_cookie(
            LANGUAGE_COOKIE,
            chosen,
            max_age=_COOKIE_SECONDS,
            secure=request.is_secure,
            httponly=True,
            samesite="Lax",
        )
