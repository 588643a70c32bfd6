"""The pages of people in this process, and browsers without JavaScript that visit them."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import unescape
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from werkzeug.test import Client, TestResponse

from authz_server.admin.app import create_admin_app
from authz_server.admin.people.cookies import COOKIE
from authz_server.app import EXTENSION
from authz_server.assembly.operator import operator_services
from authz_server.operations.operator_roles import AssignedRole
from authz_server.operations.operators import create_operator, renew_enrolment
from authz_server.settings import load_settings
from support.authenticator import Authenticator
from support.clock import clock_ahead
from support.parties import ACTOR, Parties
from support.secrets_watch import SecretsWatch
from support.settings_file import PATIENT_DATABASE, write_settings

URL = "https://admin.example"
ROLE = "security-officer"


class PeopleSite:
    """The management listener's application, twice on one database, as two workers are."""

    def __init__(self, directory: Path, database_url: str, overrides: Mapping[str, Any]) -> None:
        admin = {
            "enabled": True,
            "public_url": URL,
        }
        admin |= dict(overrides.get("admin", {}))
        tables = {"database": PATIENT_DATABASE, **overrides, "admin": admin}
        self.settings = load_settings(write_settings(directory, database_url, tables))
        self.audit_path = directory / "audit.jsonl"
        Parties(self.settings, SecretsWatch()).create_first_keys()
        self.clock = clock_ahead(1)
        self.apps = [create_admin_app(self.settings, clock=self.clock) for _ in range(2)]
        self.people = self.apps[0].people
        assert self.people is not None
        self._names = 0

    def new_operator(self, *roles: str) -> tuple[str, str]:
        """Create an operator with these roles; return the name and the path of the link."""
        self._names += 1
        name = f"operator-{self._names}"
        with operator_services(self.settings) as services:
            services.clock = self.clock
            given = [AssignedRole(role=each) for each in roles or (ROLE,)]
            made = create_operator(services, actor=ACTOR, name=name, roles=given)
        return name, urlsplit(made.enrolment.link).path

    def new_link(self, name: str) -> str:
        """Return the path of a further link."""
        with operator_services(self.settings) as services:
            services.clock = self.clock
            return urlsplit(renew_enrolment(services, name, actor=ACTOR).link).path

    def enrolled(self, *roles: str) -> "Visitor":
        """Return a browser whose operator has enrolled a passkey, and so is logged in."""
        name, path = self.new_operator(*roles)
        visitor = Visitor(self, name)
        answer = visitor.enrol(path)
        assert answer.status_code == 200, answer.text
        return visitor

    def records(self, event: str) -> list[dict[str, Any]]:
        """Return the audit records of an event; later refusals have records of their own."""
        for app in self.apps:
            app.extensions[EXTENSION].refusals.flush(at_once=True)
        lines = self.audit_path.read_text().splitlines()
        found = [json.loads(line) for line in lines if line]
        return [each for each in found if each["event"] == event]

    def close(self) -> None:
        """Stop the background work, and close the databases and the audit files."""
        for app in self.apps:
            services = app.extensions[EXTENSION]
            services.maintenance.stop()
            services.database.close()
            services.sink.close()


class Visitor:
    """A browser: it keeps one cookie, and says where its requests come from."""

    def __init__(self, site: PeopleSite, name: str = "", worker: int = 0) -> None:
        self.site = site
        self.name = name
        self.worker = worker
        self.cookie = ""
        self.authenticator = Authenticator(URL)

    def send(self, method: str, path: str, **options: Any) -> TestResponse:
        """Send a request; keep the cookie of the answer."""
        headers = {"Cookie": f"{COOKIE}={self.cookie}"} if self.cookie else {}
        headers |= options.pop("headers", {})
        client = Client(self.site.apps[self.worker], use_cookies=False)
        answer = client.open(
            path,
            method=method,
            base_url=URL,
            headers={name: value for name, value in headers.items() if value is not None},
            environ_base={"REMOTE_ADDR": "127.0.0.1"},
            **options,
        )
        for line in answer.headers.getlist("Set-Cookie"):
            found = SimpleCookie(line)
            if COOKIE in found:
                self.cookie = found[COOKIE].value
        return answer

    def get(self, path: str, **options: Any) -> TestResponse:
        """Open a page."""
        return self.send("GET", path, **options)

    def token(self, path: str = "/login?step_up=1") -> str:
        """Return the CSRF token of a page."""
        found = re.search(r'name="csrf_token" value="([^"]*)"', self.get(path).text)
        assert found is not None
        return unescape(found[1])

    def post(self, path: str, fields: Mapping[str, str], **headers: str | None) -> TestResponse:
        """Send a form of one of our pages."""
        sent = {
            "Origin": URL,
            "Sec-Fetch-Site": "same-origin",
            "Content-Type": "application/x-www-form-urlencoded",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return self.send("POST", path, data=urlencode(fields), headers=sent)

    def script(self, path: str, members: object, token: str, **headers: str | None) -> TestResponse:
        """Send what our script sends."""
        sent = {
            "Origin": URL,
            "Sec-Fetch-Site": "same-origin",
            "Content-Type": "application/json",
            "X-CSRF-Token": token,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return self.send("POST", path, data=json.dumps(members), headers=sent)

    def options(self, path: str, token: str) -> dict[str, Any]:
        """Return the options that the server gives for a passkey."""
        answer = self.script(path, {}, token)
        assert answer.status_code == 200, answer.text
        return answer.json["publicKey"]

    def enrol(self, path: str) -> TestResponse:
        """Follow an enrolment link, and register a passkey."""
        token = self.token(path)
        credential = self.authenticator.create(self.options(f"{path}/begin", token))
        return self.script(f"{path}/finish", {"credential": credential, "name": "laptop"}, token)

    def log_in(self, *, step_up: bool = False, to: str = "/", **client_data: Any) -> TestResponse:
        """Log in with the passkey; or confirm the session."""
        query = "?step_up=1" if step_up else ""
        token = self.token()
        options = self.options(f"/login/passkey/begin{query}", token)
        credential = self.authenticator.get(options, **client_data)
        return self.script("/login/passkey/finish", {"credential": credential, "next": to}, token)

    def log_out(self) -> TestResponse:
        """Log out."""
        return self.post("/logout", {"csrf_token": self.token()})

    def caller(self, worker: int | None = None) -> Any:
        """Return who the server takes this browser for."""
        people = self.site.apps[self.worker if worker is None else worker].people
        return people.find_session({"HTTP_COOKIE": f"{COOKIE}={self.cookie}"})


@contextmanager
def running_people_site(
    directory: Path, database_url: str, overrides: Mapping[str, Any] | None = None
) -> Iterator[PeopleSite]:
    """Make a site; its databases are closed in the end."""
    site = PeopleSite(directory, database_url, overrides or {})
    try:
        yield site
    finally:
        site.close()
