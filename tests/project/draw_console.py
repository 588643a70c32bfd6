"""Makes the pictures of the console in ``docs/``: ``python draw_console.py FOLDER``.

They show a console of this process with sample clients, in the system's Chromium. Times and the ids
of keys are those of the run.
"""

import secrets
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright
from werkzeug.serving import WSGIRequestHandler, make_server

from authz_server.database.schema import upgrade_database
from authz_server.settings import DatabaseSettings
from support.admin_site import AdminSite, running_admin_site
from support.browser import find_chromium
from support.console_site import COOKIE, ConsoleSite
from support.ports import reserve_port

#: The pictures: the name of each, its address, and the height of the window.
PICTURES = (
    ("console-now", "/", 700),
    ("console-api", "/apis/api?id=social-registry", 900),
    ("console-keys", "/keys", 760),
)
WIDTH = 1180
MAXIMUM_BYTES = 150_000
_CLIENTS = (
    ("Farmer subsidy programme", "Ministry of Agriculture", ("search", "link")),
    ("Old-age pension system", "Pension Fund", ("search", "disburse")),
    ("School meals", "Ministry of Education", ("search",)),
    ("Emergency cash transfer", "Disaster Relief Agency", ("search", "disburse", "link")),
    ("برنامج الدعم النقدي", "وزارة التضامن", ("search", "disburse")),
    ("Statistics office", "National Statistics", ("search",)),
    ("Health insurance", "Ministry of Health", ("search", "link")),
)
_SCOPES = (
    ("search", "read", "Search for persons"),
    ("link", "write", "Link an account to a person"),
    ("disburse", "money", "Order a payment"),
)


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        """Write nothing."""


def main(folder: Path) -> None:
    """Make the pictures."""
    program = find_chromium()
    if program is None:
        sys.exit("The pictures need Chromium (apt install chromium).")
    with (
        sample_site() as site,
        _served(ConsoleSite(site)) as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        context = browser.new_context(locale="en-GB")
        context.add_cookies([{"name": "session", "value": COOKIE, "url": url}])
        page = context.new_page()
        for name, path, height in PICTURES:
            page.set_viewport_size({"width": WIDTH, "height": height})
            page.goto(f"{url}{path}")
            picture = folder / f"{name}.png"
            page.screenshot(path=picture)
            size = picture.stat().st_size
            if size > MAXIMUM_BYTES:
                sys.exit(f"{picture} has {size} bytes.")
        browser.close()


@contextmanager
def sample_site() -> Iterator[AdminSite]:
    """A site with sample clients in a temporary folder."""
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/console.db"
        upgrade_database(DatabaseSettings(url=url))
        with running_admin_site(Path(directory), url) as site:
            _fill(site)
            yield site


def _fill(site: AdminSite) -> None:
    """Register APIs and clients, and issue tokens over an hour."""
    names = {name: f"people/{name}" for name, *_ in _SCOPES}
    for name, risk, description in _SCOPES:
        body = {"name": names[name], "risk": risk, "description": description}
        _require(site.send("POST", "/scopes", json=body))
    for server, title in (("social-registry", "Social registry"), ("payments", "Payment gateway")):
        body = {"id": server, "name": title, "identifier": f"https://{server}.example.gov"}
        if server == "social-registry":
            body["scopes"] = list(names.values())
        _require(site.send("POST", "/resource-servers", json=body))
    ids = []
    for number, (name, organisation, scopes) in enumerate(_CLIENTS, start=1):
        made = site.new_client(
            name,
            id=f"programme-{number}",
            organisation=organisation,
            allowed_scopes=[names[each] for each in scopes],
            authentication_method="client_secret_post",
        )
        site.secrets[made["id"]] = made["secret"]["value"]
        ids.append((made["id"], [names[each] for each in scopes]))
    site.public.extensions["authz_server"].feed.poll()
    for minute in range(55):
        site.clock.advance(60)
        for number, (client, scopes) in enumerate(ids):
            if secrets.SystemRandom().random() < 0.3 + 0.05 * number:
                resource = "https://social-registry.example.gov"
                site.ask_token(scopes[minute % len(scopes)], client=client, resource=resource)
        if minute % 9 == 4:
            site.ask_token("people/disburse", client="programme-3")
    site.forget_tokens()
    site.change("POST", "/clients/programme-6/disable", {}, item="/clients/programme-6")
    _require(
        site.send(
            "POST",
            "/stops",
            json={"kind": "client", "subject": "programme-3", "reason": "secret found in a log"},
        )
    )


def _require(answer) -> None:
    if answer.status_code not in {200, 201}:
        sys.exit(answer.text)


@contextmanager
def _served(console: ConsoleSite):
    port = reserve_port()
    server = make_server("127.0.0.1", port, console.app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
