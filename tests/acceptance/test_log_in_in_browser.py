"""Log-ins in a browser, with passkeys of its virtual authenticator and at node-oidc-provider."""

import json
import re
from pathlib import Path

import httpx
import pytest

from authz_server.admin.people.cookies import COOKIE
from authz_server.assembly.operator import operator_services
from authz_server.operations.operator_roles import AssignedRole
from authz_server.operations.operators import create_operator, set_operator_enabled
from authz_server.settings import load_settings
from support.axe import axe, violations_in_both_schemes
from support.browser import visiting
from support.databases import copied_database
from support.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider
from support.live_server import LiveServer
from support.parties import ACTOR, Parties
from support.ports import release_port, reserve_port
from support.secrets_watch import SecretsWatch
from support.settings_file import write_secret, write_settings

__all__ = ["axe"]

STRONG = "urn:example:strong"
ACCOUNTS = {
    "id-of-ada": {"preferred_username": "ada", "groups": ["security"]},
    "id-of-eve": {"preferred_username": "eve", "groups": ["visitors"]},
}


class Site:
    """A running server with its console."""

    def __init__(self, server: LiveServer, url: str, provider: IdentityProvider) -> None:
        self.server = server
        self.url = url
        self.provider = provider
        self.settings = load_settings(server.settings_path)

    def new_link(self, name: str) -> str:
        """Create a security officer; return the link."""
        with operator_services(self.settings) as services:
            roles = [AssignedRole(role="security-officer")]
            made = create_operator(services, actor=ACTOR, name=name, roles=roles)
        return made.enrolment.link

    def records(self, event: str) -> list[dict]:
        """Return the audit records of an event."""
        with Path(self.settings.audit.destination).open(encoding="utf-8") as file:
            found = [json.loads(line) for line in file if line.strip()]
        return [each for each in found if each["event"] == event]


@pytest.fixture(scope="module")
def site(request, tmp_path_factory, oidc_provider):
    """The server of the file, on SQLite, by plain http on localhost as it is by default."""
    directory = tmp_path_factory.mktemp("console")
    port = reserve_port()
    url = f"http://localhost:{port}"
    write_secret(directory / "client-secret", CLIENT_SECRET)
    with (
        copied_database(request, "sqlite", directory) as database_url,
        IdentityProvider(oidc_provider, f"{url}/login/openid/callback", ACCOUNTS) as provider,
    ):
        openid = {
            "issuer": provider.issuer,
            "client_id": CLIENT_ID,
            "client_secret": {"file": "client-secret"},
            "scopes": ["openid", "profile", "groups"],
            "roles": {"security": ["security-officer"]},
            "acr_values": [STRONG],
        }
        tables = {"admin": {"enabled": True, "port": port, "openid": openid}}

        def write(**overrides):
            return write_settings(directory, database_url, overrides)

        settings = load_settings(write(**tables))
        Parties(settings, SecretsWatch()).create_first_keys()
        with LiveServer(write, directory, **tables) as server:
            yield Site(server, url, provider)
    release_port(port)


@pytest.fixture
def visitor(browser):
    """A person at the browser, with a device for passkeys."""
    with visiting(browser) as made:
        made.add_authenticator()
        yield made
        assert not [each for each in made.problems if "status of" not in each]


def cookie_of(visitor) -> dict:
    """Return the cookie of the console, as the browser keeps it."""
    (found,) = [each for each in visitor.context.cookies() if each["name"] == COOKIE]
    return found


def is_logged_in(visitor, site) -> bool:
    """Open a page that only a local operator who is logged in sees."""
    visitor.page.goto(f"{site.url}/passkeys")
    return visitor.page.url == f"{site.url}/passkeys"


def enrol(visitor, site, name: str) -> None:
    visitor.page.goto(site.new_link(name))
    visitor.page.get_by_label("Name of the passkey").fill("laptop")
    visitor.page.get_by_role("button", name="Create a passkey").click()
    visitor.page.wait_for_url(f"{site.url}/")


def log_in(visitor, site, path: str = "/passkeys") -> None:
    visitor.page.goto(f"{site.url}/login?next={path}")
    visitor.page.get_by_role("button", name="Log in with a passkey").click()
    visitor.page.wait_for_url(f"{site.url}{path}")


def test_an_operator_enrols_logs_out_and_logs_in(visitor, site):
    link = site.new_link("grace")
    visitor.page.goto(link)
    assert "grace" in visitor.page.inner_text("main")
    visitor.page.get_by_label("Name of the passkey").fill("laptop")
    visitor.page.get_by_role("button", name="Create a passkey").click()
    visitor.page.wait_for_url(f"{site.url}/")
    assert [each["rpId"] for each in visitor.passkeys()] == ["localhost"]
    cookie = cookie_of(visitor)
    # Chromium accepts and sends a Secure cookie for localhost without TLS.
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")
    assert is_logged_in(visitor, site)
    visitor.page.goto(link)
    assert "The link was used before" in visitor.page.inner_text("main")
    before = cookie["value"]
    answer = log_out(visitor, site)
    assert answer == f"{site.url}/login"
    assert not is_logged_in(visitor, site)
    log_in(visitor, site)
    assert cookie_of(visitor)["value"] != before
    assert "laptop" in visitor.page.inner_text("main")


def log_out(visitor, site) -> str:
    """Log out as the form of a page does; return where that leads."""
    visitor.page.goto(f"{site.url}/login?step_up=1")
    visitor.page.evaluate(
        """() => {
          const form = document.querySelector("form").cloneNode(true);
          form.action = "/logout";
          document.body.append(form);
          form.submit();
        }"""
    )
    visitor.page.wait_for_url(f"{site.url}/login")
    return visitor.page.url


def test_a_second_passkey_and_the_loss_of_the_first(visitor, site):
    (first,) = visitor._authenticators  # noqa: SLF001 - the device that the fixture added
    enrol(visitor, site, "hedy")
    assert is_logged_in(visitor, site)
    # A device does not hold two passkeys of one operator here.
    visitor.page.get_by_role("button", name="Create a passkey").click()
    visitor.page.get_by_text("is already registered").wait_for()
    visitor.remove_authenticator(first)
    visitor.add_authenticator(transport="usb")
    visitor.page.get_by_label("Name of the passkey").fill("key ring")
    visitor.page.get_by_role("button", name="Create a passkey").click()
    visitor.page.get_by_role("cell", name="key ring").wait_for()
    log_out(visitor, site)
    log_in(visitor, site)
    row = visitor.page.get_by_role("row").filter(has_text="laptop")
    row.get_by_role("button", name="Remove").click()
    visitor.page.wait_for_url(f"{site.url}/passkeys")
    row.wait_for(state="detached")


def test_a_session_is_confirmed(visitor, site):
    enrol(visitor, site, "ida")
    before = cookie_of(visitor)["value"]
    visitor.page.goto(f"{site.url}/login?step_up=1&next=/passkeys")
    assert "Confirm that it is you" in visitor.page.inner_text("main")
    visitor.page.get_by_role("button", name="Log in with a passkey").click()
    visitor.page.wait_for_url(f"{site.url}/passkeys")
    assert cookie_of(visitor)["value"] != before
    assert site.records("operator.signed_in")[-1]["again"] is True


def test_a_disabled_operator_is_out_and_the_page_says_why(visitor, site):
    # The last security officer would not be disabled.
    site.new_link("jean")
    enrol(visitor, site, "joan")
    with operator_services(site.settings) as services:
        set_operator_enabled(services, "joan", actor=ACTOR, enabled=False)
    assert not is_logged_in(visitor, site)
    visitor.page.goto(f"{site.url}/login")
    visitor.page.get_by_role("button", name="Log in with a passkey").click()
    visitor.page.get_by_text("This operator is disabled.").wait_for()


def test_without_a_passkey_the_page_says_so_in_the_language_of_the_reader(browser, site):
    with visiting(browser, locale="fr-FR") as visitor:
        visitor.add_authenticator()
        visitor.page.goto(f"{site.url}/login")
        visitor.page.get_by_role("button", name="Se connecter avec une clé d'accès").click()
        visitor.page.get_by_text("La clé d'accès n'a pas été utilisée").wait_for()
    with visiting(browser, java_script_enabled=False) as visitor:
        visitor.page.goto(f"{site.url}/login")
        assert "A passkey needs JavaScript." in visitor.page.inner_text("main")
        visitor.page.get_by_role("link", name="Português").click()
        assert visitor.page.get_attribute("html", "lang") == "pt"


def test_a_person_of_the_provider_logs_in_and_confirms_the_session(visitor, site):
    site.provider.next_log_in(account="id-of-ada", acr="urn:example:weak", amr=["pwd"])
    visitor.page.goto(f"{site.url}/login?next=/login/passkeys.js")
    visitor.page.get_by_role("link", name="Log in with your organisation's account").click()
    visitor.page.wait_for_url(f"{site.url}/login/passkeys.js")
    record = site.records("operator.signed_in")[-1]
    assert record["operator"] == "ada (id-of-ada)"
    assert (record["groups"], record["method"]) == (["security"], "openid")
    before = cookie_of(visitor)["value"]
    # The provider has a session, yet authenticates again; too weakly at first.
    step_up = f"{site.url}/login?step_up=1&next=/login/passkeys.js"
    visitor.page.goto(step_up)
    visitor.page.get_by_role("link", name="Log in with your organisation's account").click()
    visitor.page.get_by_text("not strongly enough").wait_for()
    assert cookie_of(visitor)["value"] == before
    site.provider.next_log_in(account="id-of-ada", acr=STRONG, amr=["hwk"])
    visitor.page.goto(step_up)
    visitor.page.get_by_role("link", name="Log in with your organisation's account").click()
    visitor.page.wait_for_url(f"{site.url}/login/passkeys.js")
    assert cookie_of(visitor)["value"] != before
    record = site.records("operator.signed_in")[-1]
    assert (record["again"], record["amr"]) == (True, ["hwk"])


def test_a_sensitive_act_of_the_console_asks_for_a_confirmation(visitor, site):
    page = visitor.page
    site.provider.next_log_in(account="id-of-ada", acr="urn:example:weak")
    page.goto(f"{site.url}/keys")
    assert page.url == f"{site.url}/login?next=%2Fkeys"
    page.get_by_role("link", name="Log in with your organisation's account").click()
    page.wait_for_url(f"{site.url}/keys")
    assert page.get_by_text("ada (id-of-ada)").is_visible()
    page.get_by_role("link", name="Rotate").first.click()
    page.wait_for_url("**/login?step_up=1&next=**")
    site.provider.next_log_in(account="id-of-ada", acr=STRONG)
    page.get_by_role("link", name="Log in with your organisation's account").click()
    page.wait_for_url("**/act/ring-rotate?**")
    page.get_by_label("Reason").fill("as the test says")
    page.get_by_role("button", name="Rotate").click()
    page.get_by_role("status").wait_for()
    records = site.records("key.changed")
    assert records[-1]["actor"] == "operator:ada (id-of-ada) via console"
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{site.url}/login")
    page.goto(f"{site.url}/keys")
    assert page.url == f"{site.url}/login?next=%2Fkeys"


def test_axe_finds_nothing_on_the_pages_of_people(browser, axe, site):
    link = site.new_link("mary")
    with visiting(browser, color_scheme="light") as visitor:
        visitor.add_authenticator()
        page = visitor.page

        def require_no_violation() -> None:
            for width in (1280, 360):
                page.set_viewport_size({"width": width, "height": 740})
                assert violations_in_both_schemes(page, axe) == [], page.url
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, page.url

        for path in ("/login", "/enrol/unknown"):
            page.goto(f"{site.url}{path}")
            require_no_violation()
        page.goto(link)
        require_no_violation()
        page.get_by_role("button", name="Create a passkey").click()
        page.wait_for_url(f"{site.url}/")
        page.get_by_role("link", name="mary").click()
        page.wait_for_url(f"{site.url}/passkeys")
        require_no_violation()
        page.goto(f"{site.url}/login?step_up=1")
        require_no_violation()


def test_a_person_without_a_role_and_a_refusal_are_explained(visitor, site):
    site.provider.next_log_in(account="id-of-eve")
    visitor.page.goto(f"{site.url}/login/openid")
    visitor.page.get_by_text("None of your groups has a role here").wait_for()
    visitor.context.clear_cookies()
    site.provider.next_log_in(error="access_denied")
    visitor.page.goto(f"{site.url}/login/openid")
    visitor.page.get_by_text("The OpenID Connect provider refused the log-in.").wait_for()
    reasons = [each["reason"] for each in site.records("operator.sign_in_refused")]
    assert reasons[-2:] == ["no_role", "provider_refused"]


def test_what_people_hold_is_not_in_the_output_of_the_server(visitor, site):
    """Case K122."""
    link = site.new_link("katherine")
    visitor.page.goto(link)
    visitor.page.get_by_role("button", name="Create a passkey").click()
    visitor.page.wait_for_url(f"{site.url}/")
    secrets = {link.rpartition("/")[2], cookie_of(visitor)["value"]}
    visitor.page.goto(f"{site.url}/login?step_up=1")
    secrets.add(visitor.page.get_attribute("input[name=csrf_token]", "value"))
    site.provider.next_log_in(account="id-of-ada")
    visitor.page.goto(f"{site.url}/login/openid")
    written = site.server.log()
    with Path(site.settings.audit.destination).open(encoding="utf-8") as file:
        written += file.read()
    assert not [secret for secret in (*secrets, CLIENT_SECRET) if secret in written]


def test_the_pages_are_on_the_management_listener_alone(site):
    for path in ("/login", "/enrol/x", "/passkeys", "/login/passkeys.js"):
        assert httpx.get(f"{site.server.base_url}{path}").status_code == 404
    script = httpx.get(f"{site.url}/login/passkeys.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert not re.search(r"https?://|eval|innerHTML", script.text)
