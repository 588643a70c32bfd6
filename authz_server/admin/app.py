"""The application of the management listener."""

from authz_server.app import EXTENSION, Application, bare_application
from authz_server.assembly import Clock, utc_now
from authz_server.assembly.server import ServerServices
from authz_server.database.orm import open_database
from authz_server.endpoints.errors import ErrorResponses, handle_everything_else
from authz_server.metrics.files import open_recorder
from authz_server.settings import Settings
from keys.forks import at_exit


def create_admin_app(settings: Settings, *, clock: Clock = utc_now) -> Application:
    """Return the application of the management listener, a WSGI callable.

    Args:
        settings: the checked settings, with the management listener enabled.
        clock: returns the present time, timezone-aware.

    Raises:
        PluginError: a plugin cannot be used.
        KeysError: a key backend cannot be used.
    """
    app = bare_application("authz_server.admin")
    services = ServerServices(settings, open_database(settings.database), clock, open_recorder())
    services.make_all()
    app.extensions[EXTENSION] = services
    handle_everything_else(app, ErrorResponses(settings.server.retry_after_seconds))
    app.before_request(services.maintenance.start)
    at_exit(services.maintenance.stop)
    return app
