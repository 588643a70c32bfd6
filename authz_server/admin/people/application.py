"""The people who log in, as the management listener uses them."""

from collections.abc import Callable
from wsgiref.types import WSGIEnvironment

import flask
from flask import Blueprint, Flask, Response

from authz_server.admin.console.languages import choose_language
from authz_server.admin.people import cookies
from authz_server.admin.people.guards import SiteGuard
from authz_server.admin.people.log_in_pages import LogInPages
from authz_server.admin.people.log_ins import LogIns
from authz_server.admin.people.openid import OpenIDProvider
from authz_server.admin.people.parts import PeopleParts, with_cookie
from authz_server.admin.people.passkey_pages import PasskeyPages
from authz_server.admin.people.passkeys import Passkeys
from authz_server.admin.people.refusals import LogInRefusedError
from authz_server.admin.people.rendering import SCRIPT, answer_json, page
from authz_server.admin.people.routes import CALLBACK, ENROL
from authz_server.admin.people.sessions import Sessions
from authz_server.admin.people.texts import texts_in
from authz_server.admin.people.visits import Visit
from authz_server.admin.problems import Problem, as_problem
from authz_server.assembly.server import ServerServices
from authz_server.audit.operator_events import OperatorSignInRefused
from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.endpoints.responses import new_request_id
from authz_server.endpoints.wsgi import read_request
from authz_server.logs import bind_request_id
from authz_server.operations.enrolment import EnrolmentRefusedError
from authz_server.operations.group_roles import GroupRoles
from authz_server.operations.permissions import Caller

_LANGUAGE_COOKIE = "authz_console_language"
_SCRIPT_SECONDS = 3_600
_LOG_INS = ("/login", ENROL.rstrip("/"))


class People:
    """Answers requests to the pages of people, and finds the sessions of all pages.

    Args:
        services: the parts of the server.

    Attributes:
        provider: the OpenID Connect provider; None: there is none.

    Raises:
        SettingsError: ``[admin.openid]`` cannot be used.
    """

    def __init__(self, services: ServerServices) -> None:
        settings, url = services.settings, services.settings.admin.url
        self._services = services
        self._guard = SiteGuard(url)
        self._sessions = Sessions(services, GroupRoles(settings))
        has_provider = bool(settings.admin.openid.issuer)
        self.provider = OpenIDProvider(services, f"{url}{CALLBACK}") if has_provider else None
        parts = PeopleParts(
            services=services,
            url=url,
            guard=self._guard,
            sessions=self._sessions,
            log_ins=LogIns(services),
            passkeys=Passkeys(url, services.corrected_clock),
            provider=self.provider,
        )
        self._pages = (LogInPages(parts), PasskeyPages(parts))
        self._addresses = ClientAddressReader(
            settings.server.trusted_proxies, settings.server.forwarded_header
        )

    def add_to(self, app: Flask) -> None:
        """Add the pages to an application."""
        blueprint = Blueprint("people", __name__)
        for method, path, view in (each for pages in self._pages for each in pages.routes):
            blueprint.add_url_rule(
                path,
                endpoint=f"{method} {path}",
                view_func=self._answering(view),
                methods=[method],
            )
        blueprint.add_url_rule("/login/passkeys.js", endpoint="script", view_func=_send_script)
        app.register_blueprint(blueprint)

    def find_session(self, environ: WSGIEnvironment) -> Caller | None:
        """Return the operator of a request; None: it has no session that counts."""
        found = self._sessions.find(cookies.read_id(environ))
        return None if found is None else found.caller

    def csrf_token(self, environ: WSGIEnvironment) -> str:
        """Return the token that a form of the session sends back; empty without a cookie."""
        found = cookies.read_id(environ)
        return "" if found is None else cookies.csrf_token(found)

    def require_own_form(self, environ: WSGIEnvironment, token: str) -> None:
        """Require that a write comes from a form of this session on this site.

        Raises:
            Problem: ``refused``: it does not.
        """
        try:
            self._guard.require_own_form(environ, token)
        except LogInRefusedError as refusal:
            raise Problem("refused") from refusal

    def _answering(self, view: Callable[..., Response]) -> Callable[..., Response]:
        def answer(**names: str) -> Response:
            visit = self._open()
            try:
                answered = view(visit, **names)
            except EnrolmentRefusedError:
                answered = self._refuse(visit, LogInRefusedError("link_used"))
            except LogInRefusedError as refusal:
                answered = self._refuse(visit, refusal)
            except Exception as fault:  # noqa: BLE001 - every fault is answered by a page
                answered = self._fail(visit, fault)
            if visit.is_new and "Set-Cookie" not in answered.headers:
                answered = with_cookie(answered, visit.id)
            answered.headers["X-Request-Id"] = visit.request_id
            return answered

        return answer

    def _open(self) -> Visit:
        environ = flask.request.environ
        request_id = new_request_id()
        bind_request_id(request_id)
        request = read_request(environ, self._services.settings.server.maximum_body_bytes)
        language = choose_language(
            flask.request.args.get("lang", "") or flask.request.cookies.get(_LANGUAGE_COOKIE, ""),
            request.headers.get("accept-language", ""),
        )
        known = cookies.read_id(environ)
        return Visit(
            environ=environ,
            request=request,
            path=ENROL.rstrip("/") if request.path.startswith(ENROL) else request.path,
            address=self._addresses.read(request),
            request_id=request_id,
            texts=texts_in(language),
            id=cookies.new_id() if known is None else known,
            is_new=known is None,
        )

    def _refuse(self, visit: Visit, refusal: LogInRefusedError) -> Response:
        """Record a refusal, and return its page, or its sentence for our script."""
        self._services.notify(
            OperatorSignInRefused(
                operator=refusal.who,
                path=visit.path,
                reason=refusal.reason,
                detail=refusal.detail,
                request_id=visit.request_id,
                source_address=visit.address,
            )
        )
        return self._explain(visit, refusal.status, f"refused_{refusal.reason}")

    def _fail(self, visit: Visit, fault: Exception) -> Response:
        """Return the page for any other exception; an unexpected one is logged."""
        problem = as_problem(fault, self._services.settings.server.retry_after_seconds)
        key = "unavailable" if problem.name == "unavailable" else "malformed"
        answer = self._explain(visit, problem.status, f"refused_{key}")
        answer.headers.update(problem.headers)
        return answer

    def _explain(self, visit: Visit, status: int, key: str) -> Response:
        sentence = visit.texts(key)
        if visit.is_script:
            return answer_json(status, error=sentence)
        logs_in = visit.path.startswith(_LOG_INS)
        return page(
            "refused.html",
            visit.texts,
            status=status,
            title=visit.texts("refused" if logs_in else "failed"),
            logs_in=logs_in,
            sentence=sentence,
            request_id=visit.request_id,
        )


def _send_script() -> Response:
    answer = Response(SCRIPT, content_type="text/javascript; charset=utf-8")
    answer.headers["Cache-Control"] = f"max-age={_SCRIPT_SECONDS}"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer
