"""Checks of requests by browsers: the site that sent them, and where they lead next."""

import re
from urllib.parse import urlsplit
from wsgiref.types import WSGIEnvironment

from authz_server.admin.console.views import MAXIMUM_RETURN_CHARACTERS
from authz_server.admin.people import cookies
from authz_server.admin.people.refusals import LogInRefusedError

#: A path on this host: a browser reads ``//x`` and ``/\x`` as another host.
_LOCAL_PATH = re.compile(
    r"/(?:[A-Za-z0-9](?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})*(?:/(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+)*/?)?"
    r"(?:\?[A-Za-z0-9._~!$'()*,;:@/?&=+%-]*)?"
)


def local_path(text: str) -> str:
    """Return a path of this host to lead to; ``/`` for anything else."""
    if len(text) <= MAXIMUM_RETURN_CHARACTERS and _LOCAL_PATH.fullmatch(text):
        return text
    return "/"


class SiteGuard:
    """Refuses writes that another site has made a browser send.

    Args:
        url: the URL of the console.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.origin = f"{parts.scheme}://{parts.netloc}"

    def require_own_site(self, environ: WSGIEnvironment) -> None:
        """Require that a page of the console has sent a request.

        Raises:
            LogInRefusedError: ``cross_site``.
        """
        origin = environ.get("HTTP_ORIGIN")
        site = environ.get("HTTP_SEC_FETCH_SITE")
        # Every browser sends one of them with a POST.
        if (
            (origin is None and site is None)
            or (origin is not None and origin != self.origin)
            or (site is not None and site != "same-origin")
        ):
            raise LogInRefusedError("cross_site", "Origin or Sec-Fetch-Site")

    def require_own_form(self, environ: WSGIEnvironment, token: str) -> bytes:
        """Require a form of the console and of this browser; return the id in its cookie.

        Raises:
            LogInRefusedError: ``cross_site``.
        """
        self.require_own_site(environ)
        found = cookies.read_id(environ)
        if found is None or not cookies.is_csrf_token(found, token):
            raise LogInRefusedError("cross_site", "CSRF token")
        return found
