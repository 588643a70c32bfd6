"""The console in Chromium: each screen by axe-core, in both colour schemes and on a phone."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

from authz_server.operations.permissions import ROLES, Limits
from support.admin_site import running_admin_site
from support.axe import axe, violations_in_both_schemes
from support.browser import browser, visiting
from support.console_site import COOKIE, ConsoleSite, console, hostile
from support.databases import copied_database
from support.ports import release_port, reserve_port

__all__ = ["axe", "browser", "console", "hostile"]
# The pages do not depend on the database: those of both are read in test_pages.
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.parametrize("module_database_url", ["sqlite"], indirect=True),
]

SCREENS = (
    "/",
    "/clients",
    "/clients?q=nothing-like-this",
    "/clients/client?id=treasury&explain=1&scope=mapper/link",
    "/apis",
    "/apis/api?id=mapper",
    "/keys",
    "/tokens",
    "/audit?who=mapper/link&moment=2026-01-01T14:05",
    "/audit?of=all",
    "/changes?all=1",
    "/files",
    "/operators",
    "/operators/operator?name=grace",
    "/act/operator-create",
    "/act/operator-edit?operator=grace",
    "/act/client-create",
    "/act/client-edit?id=treasury&name=Other&allowed_scopes=mapper/link",
    "/act/secret-rotate?id=treasury",
    "/act/api-create",
    "/act/api-edit?id=mapper&name=Other&token_format=reference",
    "/act/api-secret-rotate?id=mapper",
    "/act/scope-add?id=mapper",
    "/apis/scope?name=mapper/link",
    "/act/scope-edit?scope=mapper/link",
    "/act/stream-set?id=mapper",
    "/act/client-limits?id=treasury",
    "/act/client-keys?id=treasury",
    "/clients/registration",
    "/act/registration-create",
    "/clients/review",
    "/settings?all=1",
    "/act/stop-set?kind=scope&subject=mapper/link",
    "/clients/client?id=nothing",
)
_PHONE = {"width": 360, "height": 740}


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        """Write nothing."""


@contextmanager
def serving(console) -> Iterator[str]:
    """Serve a console on loopback; yield its address."""
    port = reserve_port()
    server = make_server("127.0.0.1", port, console.app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        release_port(port)


@pytest.fixture(scope="module")
def url(console) -> Iterator[str]:
    """The address of the console, on loopback."""
    with serving(console) as address:
        yield address


@pytest.fixture(scope="module")
def ringed(request, tmp_path_factory):
    """A console with two rings, one of which has a key to destroy."""
    directory = tmp_path_factory.mktemp("ringed")
    overrides = {"keys": {"rings": {"rs256": {"algorithm": "RS256"}}}, "approvals": {"acts": []}}
    with (
        copied_database(request, "sqlite", directory) as database_url,
        running_admin_site(directory, database_url, overrides) as site,
    ):
        rotated = site.change("POST", "/rings/rs256/rotate", {"reason": "x"}, item="/rings/rs256")
        assert rotated.status_code == 200, rotated.text
        kid = site.get("/rings/rs256/keys").json["items"][0]["kid"]
        key = f"/rings/rs256/keys/{kid}"
        assert site.change("POST", f"{key}/revoke", {"reason": "x"}, item=key).status_code == 200
        yield ConsoleSite(site)


def _log_in(visitor, url: str):
    visitor.context.add_cookies([{"name": "session", "value": COOKIE, "url": url}])
    return visitor.page


def _rings(console) -> tuple[str, str]:
    ring = console.site.get("/rings").json["items"][0]["name"]
    keys = console.site.get(f"/rings/{ring}/keys").json["items"]
    return ring, next(key["kid"] for key in keys if key["signs"])


def _plan_file(page, text: str) -> None:
    """Choose a file on the screen of files, and ask for its plan."""
    file = {"name": "new.toml", "mimeType": "application/toml", "buffer": text.encode()}
    page.get_by_label("Files", exact=True).set_input_files(file)
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("heading", name="What happens").wait_for()


def test_a_form_is_sent_once(browser, url):
    """The second sending of a double click would lose the answer with the secret."""
    with visiting(browser) as visitor:
        page = _log_in(visitor, url)
        page.goto(f"{url}/act/secret-add?id=treasury&description=once")
        stopped = page.evaluate(
            """() => {
                const form = document.querySelector("form.confirm"), stopped = [];
                form.addEventListener("submit", (event) => {
                    stopped.push(event.defaultPrevented);
                    event.preventDefault();
                });
                form.requestSubmit();
                form.requestSubmit();
                dispatchEvent(new Event("pageshow"));
                form.requestSubmit();
                return stopped;
            }"""
        )
        assert stopped == [False, True, False]


def test_a_file_is_uploaded_planned_and_applied_without_javascript(browser, console, url):
    """And the download has what it added."""
    text = '[clients.uploaded]\nname = "Uploaded"\nallowed_scopes = ["mapper/link"]\n'
    with visiting(browser, java_script_enabled=False) as visitor:
        page = _log_in(visitor, url)
        page.goto(url)
        page.get_by_role("link", name="Files", exact=True).click()
        _plan_file(page, text)
        assert "1 to add, 0 to change, 0 to remove." in page.inner_text("main")
        page.get_by_role("button", name="Apply", exact=True).click()
        page.get_by_role("status").wait_for()
        assert "The files are applied." in page.inner_text("main")
        page.goto(f"{url}/files")
        with page.expect_download() as downloading:
            page.get_by_role("link", name="Download as TOML").click()
        assert "[clients.uploaded]" in downloading.value.path().read_text()
        assert visitor.problems == []
    assert console.site.get("/clients/uploaded").status_code == 200


def test_the_owner_of_an_api_rotates_its_secret_without_javascript(browser, console, url):
    """From the list of APIs to the new secret, by clicks alone, on a screen of 360 pixels."""
    limits = Limits(resource_servers=frozenset({"mapper"}))
    owner = console.operator(*ROLES["api-owner"].permissions, name="grace", limits=limits)
    before = len(console.site.get("/resource-servers/mapper").json["secrets"])
    with (
        console.acting_as(owner),
        visiting(browser, java_script_enabled=False, viewport=_PHONE) as visitor,
    ):
        page = _log_in(visitor, url)
        page.goto(f"{url}/apis")
        page.get_by_role("link", name="Mapper", exact=True).click()
        page.get_by_role("link", name="Rotate the secret").click()
        page.get_by_label("Purpose").fill("of the new gateway")
        page.get_by_role("button", name="Preview").click()
        page.get_by_text("The secrets that work now, and their ends:").wait_for()
        page.get_by_role("button", name="Rotate the secret").click()
        page.get_by_role("status").wait_for()
        assert page.get_by_label("Secret", exact=True).input_value()
        page.get_by_role("link", name="Back").last.click()
        assert "of the new gateway" in page.inner_text("main")
        assert visitor.problems == []
    assert len(console.site.get("/resource-servers/mapper").json["secrets"]) == before + 1


@pytest.mark.usefixtures("module_database_url")
def test_a_ring_moves_and_its_old_keys_are_destroyed(browser, ringed):
    """From the screen of the keys, through the plan, by clicks alone; without JavaScript too."""
    site = ringed.site
    with serving(ringed) as url, visiting(browser, java_script_enabled=False) as visitor:
        page = _log_in(visitor, url)
        page.goto(f"{url}/keys")
        ring = page.locator("section", has=page.get_by_role("heading", name="es256"))
        ring.get_by_role("link", name="Move to another ring").click()
        page.get_by_label("Ring that signs instead").fill("rs256")
        page.get_by_role("button", name="Preview").click()
        page.get_by_role("heading", name="What happens").wait_for()
        assert site.get("/rings/es256").json["successor"] is None
        page.get_by_label("Reason").fill("a shorter signature")
        page.get_by_role("button", name="Move the ring").click()
        page.get_by_role("status").wait_for()
        assert site.get("/rings/es256").json["successor"] == "rs256"
        page.goto(f"{url}/keys")
        page.get_by_role("link", name="Destroy old keys").click()
        page.get_by_text("all versions below 2 are deleted permanently").wait_for()
        page.get_by_label("Reason").fill("purge")
        page.get_by_role("button", name="Destroy the old keys").click()
        page.get_by_role("status").wait_for()
        assert site.get("/audit?action=key.destroyed").json["items"]
        page.goto(f"{url}/keys")
        assert page.get_by_role("link", name="Destroy old keys").count() == 0
        assert visitor.problems == []


def test_axe_finds_nothing_on_any_screen(browser, axe, console, url):
    """On a wide window and on one of 360 pixels, where no page is wider than the window."""
    ring, kid = _rings(console)
    acts = (
        f"/act/ring-rotate?ring={ring}",
        f"/act/ring-move?ring={ring}",
        f"/act/key-revoke?ring={ring}&kid={kid}",
    )
    with visiting(browser, color_scheme="light") as visitor:
        visitor.context.add_init_script(axe)
        page = _log_in(visitor, url)
        for path in (*SCREENS, *acts):
            page.goto(f"{url}{path}")
            for size in ({"width": 1280, "height": 900}, _PHONE):
                page.set_viewport_size(size)
                assert violations_in_both_schemes(page, axe) == [], f"{path} {size}"
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= _PHONE["width"], path
        page.goto(f"{url}/files")
        _plan_file(page, '[clients.filed]\nname = "Filed"\nallowed_scopes = ["disburse"]\n')
        for size in ({"width": 1280, "height": 900}, _PHONE):
            page.set_viewport_size(size)
            assert violations_in_both_schemes(page, axe) == [], f"plan of files {size}"
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= _PHONE["width"]
        unexpected = [each for each in visitor.problems if "404" not in each]
        assert unexpected == []


def test_a_rotation_by_keyboard_alone_and_without_javascript(browser, console, url):
    """From the first page to the result, in fewer than forty keys."""
    ring, _ = _rings(console)
    before = len(console.site.get(f"/rings/{ring}/keys").json["items"])
    with visiting(browser, java_script_enabled=False) as visitor:
        page = _log_in(visitor, url)
        page.goto(url)
        page.get_by_role("link", name="Keys", exact=True).press("Enter")
        page.get_by_role("link", name=f"Rotate {ring}", exact=True).press("Enter")
        page.get_by_role("heading", name="What happens").wait_for()
        page.keyboard.press("Tab")
        assert page.get_by_role("link", name="Skip to the content").is_visible()
        reason = page.get_by_label("Reason")
        reason.focus()
        page.keyboard.type("rotation of the year")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_role("status").wait_for()
        assert "The order is carried out." in page.inner_text("main")
        assert visitor.problems == []
    assert len(console.site.get(f"/rings/{ring}/keys").json["items"]) == before + 1


def test_a_leaked_client_is_found_and_stopped(browser, console, url):
    """Search, open, plan, reason, done: and the page says that it is stopped."""
    made = console.site.new_client("Leaked system", organisation="Relief fund")
    with visiting(browser) as visitor:
        page = _log_in(visitor, url)
        page.goto(f"{url}/clients")
        page.get_by_label("Name, id or organisation").fill("relief")
        page.get_by_role("button", name="Find").click()
        page.get_by_role("link", name="Leaked system").click()
        page.get_by_role("link", name="Stop", exact=True).click()
        page.get_by_text("Tokens in force").wait_for()
        page.get_by_label("Reason").fill("secret found in a public repository")
        page.get_by_role("button", name="Stop it now").click()
        page.get_by_role("status").wait_for()
        assert f"/clients/client?id={made['id']}" in page.url
        assert page.get_by_text("A stop is in force:").is_visible()
        assert page.get_by_text("What comes next: ").is_visible()
        assert visitor.problems == []


@pytest.mark.usefixtures("module_database_url")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_an_urgent_task_needs_is_seen_without_scrolling(browser, ringed, scheme):
    """To rotate, to ask who could, and to stop a client: on a screen of 1280 by 800."""
    made = ringed.site.new_client("Leaked system")
    rotated = next(each["name"] for each in ringed.site.get("/rings").json["items"])
    seen = (
        ("/keys", "link", f"Rotate {rotated}"),
        (f"/act/ring-rotate?ring={rotated}", "button", "Rotate the keys"),
        ("/audit", "button", "Ask"),
        (f"/clients/client?id={made['id']}", "link", "Stop"),
        (f"/act/stop-set?kind=client&subject={made['id']}", "button", "Stop it now"),
    )
    with serving(ringed) as address, visiting(browser) as visitor:
        page = _log_in(visitor, address)
        page.set_viewport_size({"width": 1280, "height": 800})
        page.emulate_media(color_scheme=scheme)
        for path, role, name in seen:
            page.goto(f"{address}{path}")
            box = page.get_by_role(role, name=name, exact=True).first.bounding_box()
            assert box["y"] + box["height"] <= 800, path


def test_who_could_and_who_did_is_answered(browser, console, url):
    """The client that holds the scope, and the token that it was issued."""
    console.site.new_token("mapper/link", client="treasury", resource="https://mapper.example")
    with visiting(browser) as visitor:
        page = _log_in(visitor, url)
        page.goto(f"{url}/audit")
        page.get_by_role("combobox", name="Scope").first.fill("mapper/link")
        moment = console.site.clock().strftime("%Y-%m-%dT%H:%M:%S")
        page.get_by_label("Moment (UTC)").fill(moment)
        page.get_by_role("button", name="Ask").click()
        page.get_by_role("heading", name="Who had a token").wait_for()
        answered = page.inner_text("main")
        assert re.search(
            r"Who could,.*\ntreasury.*Who had a token\n.*treasury", answered, re.DOTALL
        )
        assert visitor.problems == []


def test_stored_script_is_inert_in_every_field(browser, url, hostile):
    """Whatever a client or an operator has entered is shown as text, and changes no direction."""
    with visiting(browser) as visitor:
        page = _log_in(visitor, url)
        asked: list[str] = []
        page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        for path in hostile.pages:
            page.goto(f"{url}{path}")
            entered = "[...document.querySelectorAll('input, option')].map(e => e.value + e.text)"
            text = page.inner_text("body") + "".join(page.evaluate(entered))
            assert "<script>alert(1)</script>" in text, path
            assert "\u202e" not in text, path
            assert page.evaluate("document.querySelectorAll('script').length") == 1, path
        assert asked == []
        # A stop of something unknown is refused.
        assert [each for each in visitor.problems if "404" not in each] == []


def test_the_screen_now_refreshes_itself(browser, console, url):
    """While it is looked at; a pause stops it."""
    with visiting(browser) as visitor:
        page = _log_in(visitor, url)
        page.clock.install()
        page.goto(url)
        first = page.locator("main time").first.inner_text()
        console.site.clock.advance(60)
        page.clock.run_for(16_000)
        page.wait_for_function(
            "first => document.querySelector('main time').innerText !== first", arg=first
        )
        page.get_by_role("button", name="Pause").click()
        assert page.get_by_role("button", name="Refresh again").is_visible()
        paused = page.locator("main time").first.inner_text()
        console.site.clock.advance(60)
        page.clock.run_for(60_000)
        assert page.locator("main time").first.inner_text() == paused
        assert visitor.problems == []
