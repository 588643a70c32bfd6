"""An API with django-oauth-toolkit. Arguments: its settings, a port, the scope that it needs.

Its database is beside the settings.
"""

import runpy
import sys
from pathlib import Path
from types import ModuleType
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.http import HttpRequest, JsonResponse
from django.urls import path as url_path
from django.views.decorators.csrf import csrf_exempt


class Handler(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def configure(path: Path) -> None:
    """Configure Django with the printed settings, and create the tables."""
    printed = runpy.run_path(str(path))
    urls = ModuleType("urls")
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": path.with_suffix(".sqlite3"),
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "oauth2_provider",
        ],
        OAUTH2_PROVIDER=printed["OAUTH2_PROVIDER"],
        ROOT_URLCONF=urls,
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    urls.urlpatterns = []


def main(path: Path, port: int, scope: str) -> None:
    """Serve until the process is ended."""
    configure(path)
    # Its models can be imported once Django is configured.
    from oauth2_provider.decorators import protected_resource  # noqa: PLC0415

    @csrf_exempt
    @protected_resource(scopes=[scope])
    def answer(_: HttpRequest) -> JsonResponse:
        return JsonResponse({"answered": True})

    settings.ROOT_URLCONF.urlpatterns = [url_path("", answer)]
    with make_server("127.0.0.1", port, WSGIHandler(), handler_class=Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
