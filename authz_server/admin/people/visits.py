"""One request to a page of people."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode
from wsgiref.types import WSGIEnvironment

from authz_server.admin.console.languages import Texts
from authz_server.admin.people import cookies
from authz_server.admin.people.guards import local_path
from authz_server.admin.people.refusals import LogInRefusedError
from authz_server.admin.people.sessions import RequestFacts
from authz_server.endpoints.request import Request
from keys.errors import TokenRefusedError
from keys.jose.compact import parse_json_object

_MAXIMUM_FIELDS = 32
_JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request.

    Attributes:
        environ: the request (PEP 3333).
        request: the request with its body.
        path: the path without the token of an enrolment link, for the record.
        address: the IP address of the browser.
        request_id: its id.
        texts: the texts in the language of the page.
        id: the id in the cookie, or a new one.
        is_new: whether the browser has not yet sent this id.
    """

    environ: WSGIEnvironment
    request: Request
    path: str
    address: str
    request_id: str
    texts: Texts
    id: bytes
    is_new: bool

    @property
    def facts(self) -> RequestFacts:
        """The fields of the request in records."""
        return RequestFacts(self.request_id, self.address)

    @property
    def known_id(self) -> bytes | None:
        """The id in the cookie; None without one."""
        return None if self.is_new else self.id

    @property
    def csrf_token(self) -> str:
        """The token of the forms of this page."""
        return cookies.csrf_token(self.id)

    @property
    def next(self) -> str:
        """The path of this host to which the log-in leads."""
        return local_path(self.parameter("next"))

    @property
    def is_script(self) -> bool:
        """Whether our script has sent the request."""
        return self.request.headers.get("content-type", "").partition(";")[0].strip() == _JSON

    def parameter(self, name: str) -> str:
        """Return a parameter of the query string; empty without one, or with several."""
        return _single(self.request.query, name)

    def field(self, name: str) -> str:
        """Return a field of the form; empty without one, or with several."""
        if self.request.fault is not None:
            raise self.request.fault
        return _single(self.request.body.decode("utf-8", "replace"), name)

    def members(self) -> dict[str, Any]:
        """Return the JSON object in the body.

        Raises:
            LogInRefusedError: ``malformed``.
        """
        if self.request.fault is not None:
            raise self.request.fault
        try:
            members = parse_json_object(self.request.body)
        except TokenRefusedError:
            members = None
        if not self.is_script or members is None:
            raise LogInRefusedError("malformed")
        return members

    def link(self, path: str, **parameters: str) -> str:
        """Return a path of this host with the parameters that have a value."""
        given = {name: each for name, each in parameters.items() if each}
        return f"{path}?{urlencode(given)}" if given else path


def text_of(members: Mapping[str, Any], name: str) -> str:
    """Return a text in a JSON object; empty without one."""
    value = members.get(name)
    return value if isinstance(value, str) else ""


def object_of(members: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object in a JSON object.

    Raises:
        LogInRefusedError: ``malformed``.
    """
    value = members.get(name)
    if not isinstance(value, dict):
        raise LogInRefusedError("malformed", name)
    return value


def _single(text: str, name: str) -> str:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAXIMUM_FIELDS)
    except ValueError:
        return ""
    found = [value for each, value in pairs if each == name]
    return found[0] if len(found) == 1 else ""
