"""Access tokens that a client obtains for the admin API (RFC 6749, 4.4)."""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from authz_server.cli.plain_text import shown
from authz_server.cli.remote.connection import Connection, RemoteError, Response, Trust
from authz_server.cli.remote.signing import ProofKey, SigningClient
from keys.errors import TokenRefusedError
from keys.jose.compact import parse_json_object

_AUDIENCE = "urn:authz-server:admin"
_WELL_KNOWN = "/.well-known/oauth-authorization-server"
_OK = 200


class ClientCredentials:
    """Tokens of a client, with the permissions that the command needs and no others.

    They are bound to a key of this process if the server supports it (RFC 9449).

    Args:
        issuer: the issuer of the server.
        client_id: the client.
        secret: its secret; None if it has a key or a certificate.
        key_pem: its private key, which signs assertions (RFC 7523, 2.2); None if it has none.
            Without both, the certificate of the connection authenticates it (RFC 8705, 2).
        scope: the scopes to ask for; empty: those that the command needs.
        trust: the certificates of connections.

    Raises:
        RemoteError: the key cannot be read.
    """

    def __init__(  # noqa: PLR0913 - the options of a client
        self,
        issuer: str,
        client_id: str,
        *,
        secret: str | None = None,
        key_pem: bytes | None = None,
        scope: str = "",
        trust: Trust,
    ) -> None:
        self._issuer = issuer
        self._client_id = client_id
        self._secret = secret
        self._key = None if key_pem is None else SigningClient(key_pem)
        self._trust = trust
        self._metadata: Mapping[str, Any] = {}
        self._proofs: ProofKey | None = None
        self._permissions = set(scope.split())
        self._has_scope = bool(scope)
        self._token = ""

    def headers(self, method: str, url: str, permission: str) -> dict[str, str]:
        """Return the headers with a token that has the permissions, and with its proof."""
        needed = set(permission.split())
        if not self._token or not (self._has_scope or needed <= self._permissions):
            if not self._has_scope:
                self._permissions |= needed
            self._token = self._obtain()
        if self._proofs is None:
            return {"Authorization": f"Bearer {self._token}"}
        proof = self._proofs.prove(method, url, self._token)
        return {"Authorization": f"DPoP {self._token}", "DPoP": proof}

    def wants_repetition(self, response: Response) -> bool:
        """Return whether the server gives a nonce that the next proof needs (RFC 9449, 9)."""
        return self._proofs is not None and self._proofs.note_nonce(response)

    def _obtain(self) -> str:
        """Return a new token with the permissions.

        Raises:
            RemoteError: the server does not issue it.
        """
        if not self._metadata:
            self._metadata = self._discover()
            if self._metadata.get("dpop_signing_alg_values_supported"):
                self._proofs = ProofKey()
        url = self._token_endpoint()
        endpoint = Connection(url, "token_endpoint", self._trust)
        response = self._ask(endpoint)
        if self.wants_repetition(response):
            response = self._ask(endpoint)
        members = _members(response)
        if response.status != _OK:
            reason = members.get("error_description") or members.get("error") or response.status
            wanted = " ".join(sorted(self._permissions))
            text = f"{self._client_id} gets no token for {wanted}: {reason}"
            raise RemoteError(shown(text))
        token, kind = str(members.get("access_token", "")), str(members.get("token_type", ""))
        if not token or kind.lower() not in {"bearer", "dpop"}:
            raise RemoteError(f"{url} answers without an access token.")
        if kind.lower() == "bearer":
            self._proofs = None
        return token

    def _token_endpoint(self) -> str:
        """Return the URL of the token endpoint, with a certificate that of RFC 8705, 5."""
        found = self._metadata["token_endpoint"]
        if self._trust.certificate_file is not None:
            aliases = self._metadata.get("mtls_endpoint_aliases")
            if isinstance(aliases, Mapping):
                found = aliases.get("token_endpoint", found)
        return str(found)

    def _ask(self, endpoint: Connection) -> Response:
        headers, form = self._authentication()
        if self._proofs is not None:
            headers["DPoP"] = self._proofs.prove("POST", endpoint.url)
        return endpoint.send("POST", "", headers, urlencode(form).encode())

    def _authentication(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the headers and the form of a token request."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        form = {
            "grant_type": "client_credentials",
            "scope": " ".join(sorted(self._permissions)),
            "resource": _AUDIENCE,
        }
        if self._key is not None:
            supported = self._metadata.get("token_endpoint_auth_signing_alg_values_supported", ())
            assertion = self._key.assert_identity(self._client_id, self._issuer, supported)
            return headers, {**form, **assertion}
        if self._secret is None:
            return headers, {**form, "client_id": self._client_id}
        # RFC 6749, 2.3.1: both parts are form-encoded first.
        pair = f"{quote_plus(self._client_id)}:{quote_plus(self._secret)}"
        headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        return headers, form

    def _discover(self) -> Mapping[str, Any]:
        """Return the metadata of the issuer (RFC 8414, 3)."""
        parts = urlsplit(self._issuer)
        # Those who read metadata show no certificate.
        trust = self._trust.without_certificate()
        origin = Connection(f"{parts.scheme}://{parts.netloc}", "--issuer", trust)
        target = f"{_WELL_KNOWN}{parts.path.rstrip('/')}"
        response = origin.send("GET", target, {"Accept": "application/json"})
        members = _members(response)
        if response.status != _OK or members.get("issuer") != self._issuer:
            raise RemoteError(
                f"--issuer: {self._issuer} does not publish metadata of this issuer. Give `issuer`"
                " of the server's settings, letter by letter."
            )
        if not isinstance(members.get("token_endpoint"), str):
            raise RemoteError(f"--issuer: the metadata of {self._issuer} has no token_endpoint.")
        return members


def _members(response: Response) -> Mapping[str, Any]:
    try:
        return parse_json_object(response.body)
    except TokenRefusedError:
        return {}
