"""The console in this process, with an operator whose session the test holds."""

import html
import re
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from wsgiref.types import WSGIEnvironment

from werkzeug.test import Client, TestResponse

from authz_server.admin.console.application import Console
from authz_server.admin.console.refusals import ConsoleRefusals
from authz_server.admin.problems import Problem
from authz_server.app import bare_application
from authz_server.endpoints.errors import handle_everything_else
from authz_server.operations.permissions import Caller, Grant, Limits
from authz_server.settings.admin import PERMISSIONS
from support.admin_site import AdminSite

CSRF = "the-token"
COOKIE = "held"
_CONFIRM = re.compile(r'<form method="post" action="(/(?:act/[^"]+|files))"(.*?)</form>', re.DOTALL)


class ConsoleSite:
    """The console over the admin API of a site; `caller` is the operator, or None."""

    def __init__(self, site: AdminSite) -> None:
        self.site = site
        self.caller: Caller | None = self.operator()
        self.app = bare_application("authz_server.console")
        Console(site.app.api, self, site.settings, site.clock).add_to(self.app)
        self.app.config["MAX_CONTENT_LENGTH"] = site.settings.server.maximum_body_bytes
        handle_everything_else(self.app, ConsoleRefusals(1))
        self.client = Client(self.app, use_cookies=False)

    def operator(
        self, *permissions: str, name: str = "ada", limits: Limits | None = None
    ) -> Caller:
        """Return an operator who has just logged in; without names, with every permission."""
        grant = Grant(permissions=frozenset(permissions or PERMISSIONS), role="tests")
        return Caller(
            name=name,
            kind="operator",
            way="console",
            grants=(grant if limits is None else replace(grant, limits=limits),),
            operator_id=f"id-of-{name}",
            authenticated_at=self.site.clock(),
        )

    @contextmanager
    def acting_as(self, caller: Caller | None):
        """Another operator, for a while."""
        before, self.caller = self.caller, caller
        try:
            yield self
        finally:
            self.caller = before

    def find_session(self, environ: WSGIEnvironment) -> Caller | None:
        """Return the operator, whose log-in stays fresh."""
        if f"session={COOKIE}" not in environ.get("HTTP_COOKIE", ""):
            return None
        if self.caller is None or self.caller.authenticated_at is None:
            return self.caller
        return replace(self.caller, authenticated_at=self.site.clock())

    def csrf_token(self, environ: WSGIEnvironment) -> str:
        """Return the token of the forms."""
        del environ
        return CSRF

    def require_own_form(self, environ: WSGIEnvironment, token: str) -> None:
        """Refuse another token."""
        del environ
        if token != CSRF:
            raise Problem("refused")

    def get(self, path: str, *, session: bool = True, **headers: str) -> TestResponse:
        """Open a page."""
        sent = {"Cookie": f"session={COOKIE}"} if session else {}
        return self.client.get(path, headers=sent | headers)

    def page(self, path: str, **headers: str) -> str:
        """Return the text of a page that must be there."""
        answer = self.get(path, **headers)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.text

    def post(self, path: str, fields: Mapping[str, Any], *, session: bool = True) -> TestResponse:
        """Send a form."""
        sent = {"Cookie": f"session={COOKIE}"} if session else {}
        return self.client.post(path, data=dict(fields), headers=sent)

    def confirm(self, path: str, **fields: str) -> TestResponse:
        """Open the plan of an act, and confirm it with the fields that its form has."""
        return self.send_form(self.page(path), **fields)

    def send_form(self, page: str, **fields: str) -> TestResponse:
        """Send the form of a plan, as a browser would."""
        action, given = read_form(page)
        return self.post(action, {**given, **fields})


def read_form(page: str) -> tuple[str, dict[str, str]]:
    """Return the address of the form that confirms a plan, and its fields."""
    found = _CONFIRM.search(page)
    assert found is not None, page
    fields = {}
    for tag in re.finditer(r"<input[^>]*>|<textarea[^>]*>.*?</textarea>", found[2], re.DOTALL):
        name = re.search(r' name="([^"]+)"', tag[0])
        assert name is not None
        if tag[0].startswith("<textarea"):
            value = re.sub(r"^<[^>]*>\n?|</textarea>$", "", tag[0])
        else:
            value = (re.search(r' value="([^"]*)"', tag[0]) or ["", ""])[1]
        fields[name[1]] = html.unescape(value)
    return found[1], fields
