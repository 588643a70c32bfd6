"""The application of the management listener."""

import time
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from authz_server.admin.api import AdminApi
from authz_server.admin.authentication import Callers
from authz_server.admin.calls import AdminParts
from authz_server.admin.console.application import LARGER_FORMS, Console
from authz_server.admin.console.refusals import ConsoleRefusals
from authz_server.admin.key_contexts import KeyContexts
from authz_server.admin.pages import Cursors
from authz_server.admin.people.application import People
from authz_server.admin.people.routes import SLOW_PATHS
from authz_server.admin.rates import CallerRates
from authz_server.admin.routes import PREFIX
from authz_server.app import EXTENSION, Application, match_exactly
from authz_server.assembly import Clock, utc_now
from authz_server.assembly.server import ServerServices
from authz_server.database.orm import open_database
from authz_server.endpoints.errors import handle_everything_else
from authz_server.metrics.files import open_recorder
from authz_server.settings import Settings
from keys.forks import at_exit


class AdminApplication(Application):
    """The application of the management listener.

    Attributes:
        api: answers the paths of the admin API, without Flask: an id in a path may have a slash,
            which is then encoded.
        people: answers the pages of log-in, and finds the sessions of all pages.
    """

    api: AdminApi | None = None
    people: People | None = None

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a WSGI request."""
        path = _path_as_sent(environ)
        if self.api is None or not path.startswith(f"{PREFIX}/"):
            return super().wsgi_app(environ, start_response)
        return self.api.respond(environ, path)(environ, start_response)


def create_admin_app(settings: Settings, *, clock: Clock = utc_now) -> AdminApplication:
    """Return the application of the management listener, a WSGI callable.

    Args:
        settings: the checked settings, with the management listener enabled.
        clock: returns the present time, timezone-aware.

    Raises:
        PluginError: a plugin cannot be used.
        KeysError: a key backend cannot be used.
        SettingsError: the provider of ``[admin.openid]`` cannot be used.
    """
    app = match_exactly(
        AdminApplication("authz_server.admin", static_folder=None, template_folder=None)
    )
    services = ServerServices(settings, open_database(settings.database), clock, open_recorder())
    services.make_all()
    app.extensions[EXTENSION] = services
    pepper = settings.clients.secret_pepper.reveal()
    app.api = AdminApi(
        AdminParts(services, Cursors(pepper), KeyContexts(services)),
        Callers(services),
        CallerRates(settings.admin.requests_per_minute, time.monotonic),
        services.maintenance.start,
    )
    app.larger_bodies = {**app.api.larger_bodies, **LARGER_FORMS}
    app.people = People(services)
    app.people.add_to(app)
    app.slow_paths = SLOW_PATHS
    app.config["MAX_CONTENT_LENGTH"] = settings.server.maximum_body_bytes
    Console(app.api, app.people, settings, clock).add_to(app)
    app.errors = ConsoleRefusals(settings.server.retry_after_seconds)
    handle_everything_else(app, app.errors)
    app.before_request(services.maintenance.start)
    at_exit(services.maintenance.stop)
    return app


def _path_as_sent(environ: WSGIEnvironment) -> str:
    sent: str = environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ["PATH_INFO"]
    return sent.partition("?")[0]
