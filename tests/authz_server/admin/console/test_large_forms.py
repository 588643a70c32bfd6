"""The form of files on the real application of the listener, over the front of a worker."""

from contextlib import ExitStack

import httpx
import pytest

from authz_server.admin.console.pages.files import MAXIMUM_BYTES, MAXIMUM_FORM_BYTES
from authz_server.admin.people.cookies import COOKIE
from authz_server.app import EXTENSION
from authz_server.serving.large_bodies import MOST_AT_ONCE
from authz_server.serving.worker import build_front
from support.console_site import read_form
from support.people_site import URL, running_people_site
from support.worker_site import WorkerSite

#: A file of almost the largest size, most of which are the ends of lines.
FILE = "[clients.large]\nname = 'Large'\nallowed_scopes = []\n".ljust(MAXIMUM_BYTES, "\n")


class AdminFront(WorkerSite):
    """A worker's front with the application of the management listener."""

    def __init__(self, app) -> None:
        super().__init__()
        self._app = app

    def _begin(self) -> None:
        services = self._app.extensions[EXTENSION]
        server = services.settings.server
        self.front, self.lanes = build_front(self.loop, self._app, services, server)
        self.front.listen([self._listener], None)


@pytest.fixture
def visited(sqlite_url: str, tmp_path):
    """The front, and a visitor who has logged in."""
    with running_people_site(tmp_path, sqlite_url) as site, AdminFront(site.apps[0]) as front:
        yield front, site.enrolled("client-manager")


def send(visited, **fields) -> httpx.Response:
    """Send the form as a browser does."""
    front, visitor = visited
    given = {"csrf_token": visitor.token(), **fields}
    return httpx.post(
        f"http://127.0.0.1:{front.port}/files",
        files={
            name: each if isinstance(each, tuple) else (None, each) for name, each in given.items()
        },
        headers={"Cookie": f"{COOKIE}={visitor.cookie}", "Origin": URL},
        timeout=60,
    )


def test_files_of_400_kb_are_planned_and_applied(visited):
    """Their confirmation has the texts in fields of up to twice the size."""
    planned = send(visited, file=("large.toml", FILE.encode()), generate="yes")
    assert planned.status_code == 200, planned.text
    assert "1 to add" in planned.text
    _, fields = read_form(planned.text)
    sent = {name: value.replace("\n", "\r\n") for name, value in fields.items()}
    assert len(sent["text-0"]) > 1.9 * MAXIMUM_BYTES
    applied = send(visited, **sent)
    assert applied.status_code == 200, applied.text
    assert "The files are applied." in applied.text


def begin(visited, connection, path: str, length: int, *, has_session: bool = True) -> None:
    """Send the header of a form that expects 100 (Continue), and one byte."""
    cookie = f"Cookie: {COOKIE}={visited[1].cookie}\r\n" if has_session else ""
    connection.send(
        f"POST {path} HTTP/1.1\r\nHost: a\r\nAccept-Language: fr\r\n{cookie}"
        f"Content-Length: {length}\r\nExpect: 100-continue\r\n\r\nx".encode()
    )


def require_page(answer, status: int, words: str) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "frame-ancestors" in answer.headers["content-security-policy"]
    assert words in answer.body.decode()


def test_a_larger_form_is_refused_with_a_page(visited):
    """Before it is read; without a session, a form is as small as other bodies."""
    for path, length, has_session, words in (
        ("/files", MAXIMUM_FORM_BYTES + 1, True, "Les fichiers dépassent 400 ko"),
        ("/files", 70_000, False, "Les fichiers dépassent 400 ko"),
        ("/act/client-create", 70_000, True, "Le formulaire est trop volumineux"),
    ):
        with visited[0].connect() as connection:
            begin(visited, connection, path, length, has_session=has_session)
            require_page(connection.receive(), 413, words)


def test_few_large_forms_are_under_way_at_once(visited):
    """The next one is to be sent again."""
    with ExitStack() as held:
        for _ in range(MOST_AT_ONCE):
            connection = held.enter_context(visited[0].connect())
            begin(visited, connection, "/files", 70_000)
            assert connection.receive_interim() == 100
        with visited[0].connect() as another:
            begin(visited, another, "/files", 70_000)
            require_page(another.receive(), 503, "réessayez")


@pytest.mark.parametrize("length", [9_000, 200_000])
def test_a_form_that_is_too_long_for_an_address_is_refused_with_a_page(visited, length):
    """Whether its header was complete or not; the language is not known."""
    with visited[0].connect() as connection:
        target = f"/act/client-create?name={'x' * length}"
        connection.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        require_page(connection.receive(), 400, "What was entered is too long.")
