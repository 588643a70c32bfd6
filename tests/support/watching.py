"""Every test that talks to the server is a search for secrets in what the server writes."""

import logging
from collections.abc import Iterator
from io import BytesIO

import pytest
from flask.testing import FlaskClient

from authz_server.logs import LIBRARY_LEVELS
from support.secrets_watch import SecretsWatch
from support.serve_twin import ServeTwin
from support.settings_file import ISSUER
from support.wsgi import RawAnswer


class EverythingLogged(logging.Handler):
    """Keeps what is logged from debug level on, before redaction: what is not said cannot leak.

    What a library says below the level at which the server hears it is left out.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self._standard = frozenset(vars(logging.makeLogRecord({})))
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep message, traceback and every further field."""
        library = record.name.partition(".")[0]
        if record.levelno < LIBRARY_LEVELS.get(library, logging.NOTSET):
            return
        extras = {key: value for key, value in vars(record).items() if key not in self._standard}
        self.lines.append(f"{self._formatter.format(record)} {extras!r}")


@pytest.fixture
def alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leaves out the twin of `protocol` or `stage`: what is tested is one process's own matter."""
    names = [name for name in ("protocol", "stage") if name in request.fixturenames]
    (client,) = (request.getfixturevalue(name).client for name in names)
    twin, client.twin = client.twin, None
    yield
    client.twin = twin


@pytest.fixture
def secrets_watch() -> Iterator[SecretsWatch]:
    """The register of this test's secrets; in the end nothing written may hold any of them."""
    watch, handler, root = SecretsWatch(), EverythingLogged(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield watch
    root.setLevel(level)
    root.removeHandler(handler)
    watch.verify_absent([("log", "\n".join(handler.lines)), *watch.outputs()])


class WatchingClient(FlaskClient):
    """The test client, with every credential and token that passes through it noted.

    Where it has a twin, `serve` has to answer each request as the application does.
    """

    watch: SecretsWatch
    twin: ServeTwin | None = None

    def open(self, *arguments, **options):
        """Send a request and return the response."""
        if isinstance(form := options.get("data"), dict):
            self.watch.note_form(form)
        # By another name, documents are not for caches.
        options.setdefault("base_url", ISSUER)
        response = super().open(*arguments, **options)
        if response.is_json:
            self.watch.note_answer(response.get_json(silent=True))
        return response

    def run_wsgi_app(self, environ, buffered=False):  # noqa: FBT002 - werkzeug's
        """Hand the request to the application, and to the twin."""
        # A stream of the test's own may be there to show that nothing reads it.
        if self.twin is None or not isinstance(environ["wsgi.input"], BytesIO):
            return super().run_wsgi_app(environ, buffered)
        body = environ["wsgi.input"].read()
        received = environ | {"wsgi.input": BytesIO(body)}
        chunks, status, headers = super().run_wsgi_app(received, buffered)
        sent = {name.lower(): value for name, value in headers}
        answer = RawAnswer(int(status[:3]), sent, b"".join(chunks))
        self.twin.compare(environ, body, answer)
        return [answer.body], status, headers
