"""The parts of an HTTP request that decide about it, and how its token is presented."""

import re
from dataclasses import dataclass

from authz_verifier.compact import MAXIMUM_TOKEN_CHARACTERS
from authz_verifier.errors import BAD_REQUEST, UNAUTHORIZED, Refusal, invalid_token

#: b64token (RFC 6750, 2.1)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
_SCHEMES = {"bearer": "Bearer", "dpop": "DPoP"}


@dataclass(frozen=True, slots=True)
class Request:
    """A request to an API.

    Attributes:
        method: in upper case.
        url: the full URL as the caller wrote it, for DPoP; a query is ignored.
        authorization: each `Authorization` header.
        proofs: each `DPoP` header.
        certificate: the caller's TLS certificate as the proxy forwards it; empty without one.
    """

    method: str
    url: str
    authorization: tuple[str, ...] = ()
    proofs: tuple[str, ...] = ()
    certificate: str = ""


def read_credentials(request: Request) -> tuple[str, str]:
    """Return the scheme (`Bearer` or `DPoP`) and the token of a request.

    Tokens in queries, forms and cookies are ignored (RFC 6750, 5.3).

    Raises:
        Refusal: there is none, there are several, or it is malformed.
    """
    if not request.authorization:
        raise Refusal(UNAUTHORIZED, "", "no token")
    if len(request.authorization) > 1:
        raise Refusal(BAD_REQUEST, "invalid_request", "several Authorization headers")
    written, _, token = request.authorization[0].partition(" ")
    scheme = _SCHEMES.get(written.lower())
    if scheme is None:
        raise Refusal(UNAUTHORIZED, "", "another authentication scheme")
    token = token.strip(" ")
    if "," in token:
        # WSGI servers join repeated headers by commas.
        raise Refusal(BAD_REQUEST, "invalid_request", "several credentials")
    if not token:
        raise Refusal(BAD_REQUEST, "invalid_request", "no token after the scheme")
    if len(token) > MAXIMUM_TOKEN_CHARACTERS:
        # A server that refuses to introspect it must not be taken for one that fails.
        raise invalid_token("too large")
    if _TOKEN.fullmatch(token) is None:
        raise invalid_token("characters")
    return scheme, token
