"""Settings for software that checks tokens, filled in for one resource server.

A template is a file of the folder ``snippets``; ``@name@`` in it stands for a value. Where
reference tokens need other settings, these are in a second file, ``KIND-reference.txt``.
"""

import re
from pathlib import Path
from urllib.parse import quote, urlsplit

from authz_server.clients.authentication.shared_secret import (
    CLIENT_SECRET,
    CLIENT_SECRET_BASIC,
    SharedSecret,
)
from authz_server.clients.validation import TOKEN_FORMATS, TOKEN_TYPES
from authz_server.errors import ConflictError
from authz_server.operations.resource_servers import ResourceServerView
from authz_server.settings import Settings

_FOLDER = Path(__file__).with_name("snippets")
_FOR_REFERENCES = "-reference"
_PLACEHOLDER = re.compile(r"@([a-z_]+)@")

#: The kinds of software that there are settings for.
KINDS = tuple(
    sorted(path.stem for path in _FOLDER.glob("*.txt") if not path.stem.endswith(_FOR_REFERENCES))
)
#: Those that check signatures and cannot ask about a reference token.
SIGNATURES_ALONE = frozenset({"dotnet", "envoy", "haproxy", "kafka", "node"})
#: Those that split the setting of the audience at commas.
LISTED_AUDIENCES = frozenset({"kafka", "spring"})


def render_snippet(kind: str, settings: Settings, server: ResourceServerView) -> str:
    """Return the settings for one kind of software.

    Args:
        kind: one of KINDS.
        settings: those of the authorization server.
        server: the resource server.

    Returns:
        The text; it names the file of a secret and contains none.

    Raises:
        ConflictError: the registration does not fit this software.
    """
    template = _template(kind, reference=_is_reference(server))
    _require_fitting(kind, template, settings, server)
    values = _values(settings, server)
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)


def _template(kind: str, *, reference: bool) -> str:
    other = _FOLDER / f"{kind}{_FOR_REFERENCES}.txt"
    path = other if reference and other.exists() else _FOLDER / f"{kind}.txt"
    return path.read_text(encoding="utf-8")


def _require_fitting(
    kind: str, template: str, settings: Settings, server: ResourceServerView
) -> None:
    """Raise ConflictError with the command that makes the registration fit the software."""
    asks = "@introspection_" in template
    owned, update = f"--resource-server {server.id}", f"resource-server update {server.id}"
    faults = {
        f"It owns no scope: `authz-server scope assign SCOPE {owned}`.": not server.scopes,
        f"It names the key ring {server.signing_ring}, which the settings do not have.": (
            _ring(settings, server) not in settings.keys.rings
        ),
        f"{kind} checks no reference tokens: `authz-server {update} --token-format jwt`.": (
            kind in SIGNATURES_ALONE and _is_reference(server)
        ),
        f"{kind} needs introspection, which introspection.enabled switches off.": (
            asks and not settings.introspection.enabled
        ),
        f"{kind} sends its secret by Basic: "
        f"`authz-server {update} --authentication-method {CLIENT_SECRET}`.": (
            asks
            and CLIENT_SECRET_BASIC
            not in SharedSecret.REGISTRATIONS.get(server.authentication_method, ())
        ),
        "Its identifier contains $, which means something else in these files.": (
            "$" in (server.identifier or "")
        ),
        f"Its identifier contains a comma, which separates audiences in the settings of {kind}.": (
            kind in LISTED_AUDIENCES
            and "@audience@" in template
            and "," in (server.identifier or "")
        ),
    }
    for sentence, found in faults.items():
        if found:
            raise ConflictError(sentence)


def _is_reference(server: ResourceServerView) -> bool:
    return server.token_format != TOKEN_FORMATS[0]


def _ring(settings: Settings, server: ResourceServerView) -> str:
    return server.signing_ring or settings.keys.default_ring


def _values(settings: Settings, server: ResourceServerView) -> dict[str, str]:
    """Return the value of each placeholder."""
    issuer = settings.issuer
    place = urlsplit(issuer)
    endpoint = f"{issuer}/oauth2/introspect"
    encoded_id = quote(server.id, safe="")
    return {
        "id": server.id,
        # RFC 6749, 2.3.1, for software that sends what it is given: it may contain a colon.
        "encoded_id": encoded_id,
        "issuer": issuer,
        "host": place.hostname or "",
        "port": str(place.port or 443),
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "introspection_endpoint": endpoint,
        # Encoded once more for the URL: Dovecot stops at a user name with a colon.
        "introspection_with_secret": endpoint.replace(
            "://", f"://{quote(encoded_id, safe='')}:SECRET@", 1
        ),
        "audience": server.identifier or "",
        "scope": server.scopes[0],
        # Of the characters of a scope, only the dot means something else in a pattern.
        "scope_pattern": server.scopes[0].replace(".", "[.]"),
        "scopes": " ".join(server.scopes),
        "algorithm": settings.keys.rings[_ring(settings, server)].algorithm,
        "token_type": server.token_type or "",
        "strict": "true" if server.token_type == TOKEN_TYPES[0] else "false",
        "secret_file": f"/etc/authz/{re.sub('[^A-Za-z0-9_-]', '-', server.id)}.secret",
    }
