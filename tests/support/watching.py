"""Every test that talks to the server is a search for secrets in what the server writes."""

import logging
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from authz_server.logs import LIBRARY_LEVELS
from support.secrets_watch import SecretsWatch
from support.settings_file import ISSUER


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
    """The test client, with every credential and token that passes through it noted."""

    watch: SecretsWatch

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
