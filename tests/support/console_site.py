"""The console in this process, with an operator whose session the test holds."""

import html
import re
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import quote
from wsgiref.types import WSGIEnvironment

import pytest
from werkzeug.test import Client, TestResponse

from authz_server.admin.console.application import Console
from authz_server.admin.console.refusals import ConsoleRefusals
from authz_server.admin.problems import Problem
from authz_server.app import bare_application
from authz_server.endpoints.errors import handle_everything_else
from authz_server.operations.permissions import Caller, Grant, Limits
from authz_server.settings.admin import PERMISSIONS
from support.admin_site import AdminSite, running_admin_site
from support.operators import add_passkey

CSRF = "the-token"
COOKIE = "held"
_CONFIRM = re.compile(r'<form method="post" action="(/(?:act/[^"]+|files))"(.*?)</form>', re.DOTALL)
#: Texts that a client or an operator can enter, with everything that a page must not obey.
HOSTILE = "<script>alert(1)</script>\"'&{{7*7}} برنامج الدعم"


class Hostile(NamedTuple):
    """A client whose fields are hostile, and the pages that show them."""

    client_id: str
    pages: tuple[str, ...]


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


@pytest.fixture(scope="module")
def console(module_database_url: str, tmp_path_factory):
    """A console with clients, an API, a stop, a programme and tokens, once for each dialect."""
    with running_admin_site(tmp_path_factory.mktemp("console"), module_database_url) as site:
        made = site.send(
            "POST",
            "/resource-servers",
            json={
                "id": "mapper",
                "name": "Mapper",
                "identifier": "https://mapper.example",
                "scopes": ["mapper/*"],
            },
        )
        assert made.status_code == 201, made.text
        client = site.new_client(
            "Treasury",
            id="treasury",
            organisation="Ministry",
            allowed_scopes=["mapper/link", "disburse"],
            authentication_method="client_secret_post",
        )
        site.secrets["treasury"] = client["secret"]["value"]
        site.public.extensions["authz_server"].feed.poll()
        site.new_token("mapper/link", client="treasury", resource="https://mapper.example")
        assert site.ask_token("search", client="treasury").status_code == 400
        body = {"name": "Payments", "scopes": ["disburse"], "clients": ["treasury"]}
        assert site.send("POST", "/programmes", json=body).status_code == 200
        roles = [{"role": "api-owner", "resource_servers": ["mapper"]}]
        body = {"name": "grace", "roles": roles}
        assert site.send("POST", "/operators", json=body).status_code == 201
        add_passkey(site.services, "grace", "Telephone")
        yield ConsoleSite(site)


@pytest.fixture(scope="module")
def hostile(console) -> Hostile:
    """A client, an API, a secret, a scope, a stop and a programme with hostile texts."""
    site = console.site
    client = site.new_client(
        HOSTILE,
        id="hostile",
        organisation=HOSTILE,
        allowed_scopes=["mapper/link"],
        authentication_method="client_secret_post",
    )
    made = [
        site.send("POST", f"/clients/{client['id']}/secrets", json={"description": HOSTILE}),
        site.send(
            "POST",
            "/resource-servers",
            json={"id": "hostile-api", "name": HOSTILE, "identifier": "https://hostile.example"},
        ),
        site.send(
            "POST",
            "/scopes",
            json={
                "name": "hostile",
                "description": HOSTILE,
                "resource_server": "hostile-api",
            },
        ),
        site.send(
            "POST",
            "/registration-tokens",
            json={"description": HOSTILE, "expires_at": "2040-01-01T00:00:00Z"},
        ),
        site.send("POST", "/programmes", json={"name": HOSTILE[:60], "clients": ["hostile"]}),
        site.send(
            "POST", "/stops", json={"kind": "client", "subject": "hostile", "reason": HOSTILE}
        ),
    ]
    for answer in made:
        assert answer.status_code in {200, 201}, answer.text
    return Hostile(
        client["id"],
        (
            "/clients?q=hostile",
            f"/clients?q={quote(HOSTILE)}",
            "/clients/client?id=hostile",
            "/apis",
            "/apis/api?id=hostile-api",
            "/tokens",
            "/audit?subject=client:hostile",
            "/act/client-edit?id=hostile",
            "/act/api-edit?id=hostile-api",
            f"/act/client-edit?id=hostile&name={quote(HOSTILE)}x&allowed_scopes=mapper/link",
            f"/act/stop-set?kind=client&subject={quote(HOSTILE)}",
            "/act/secret-rotate?id=hostile",
            f"/act/programme-delete?name={quote(HOSTILE[:60])}",
            "/apis/scope?name=hostile",
            "/act/scope-edit?scope=hostile",
            "/act/scope-delete?scope=hostile",
            "/clients/registration",
        ),
    )
