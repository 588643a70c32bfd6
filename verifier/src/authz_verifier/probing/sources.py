"""Sources of the probe's sound tokens."""

import json
import os
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from authz_verifier.algorithms import algorithms_of
from authz_verifier.connections import new_client
from authz_verifier.documents import metadata_urls
from authz_verifier.errors import ConfigurationError
from authz_verifier.signing import SigningKey
from authz_verifier.testing import make_claims, proof

DEFAULT_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Options of the sources.

    Attributes:
        issuer: the authorization server.
        client_id: for the source `client`.
        client_secret: likewise.
        scope: of the tokens.
        audience: the identifier of the API.
        kid: for the source `key`: the id under which the API knows the key.
        timeout_seconds: for each request.
        ssl_context: for https; None: the certificate authorities of httpx.
    """

    issuer: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    scope: str = ""
    audience: str = ""
    kid: str = ""
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    ssl_context: ssl.SSLContext | None = None

    def new_client(self) -> httpx.Client:
        """Return a client for requests to the API and its authorization server."""
        return new_client(self.timeout_seconds, self.ssl_context)


class TokenSource:
    """A source that has one token.

    Args:
        text: the token.
    """

    def __init__(self, text: str = "") -> None:
        self._text = text

    @property
    def signer(self) -> SigningKey | None:
        """The issuer's key, if the probe has it."""
        return None

    def token(self) -> str:
        """Return a sound token."""
        return self._text

    def bound_token(self, key: SigningKey) -> str:
        """Return a token that is bound to a DPoP key; empty if the source cannot."""
        del key
        return ""

    def revoked_token(self) -> str:
        """Return a token that was revoked a moment ago; empty if the source cannot."""
        return ""


class KeySource(TokenSource):
    """Makes tokens with a key that the API trusts: an issuer for tests.

    Args:
        private: the key in PEM.
        options: the claims.
    """

    def __init__(self, private: bytes, options: SourceOptions) -> None:
        super().__init__()
        for name in ("issuer", "audience"):
            if not getattr(options, name):
                raise ConfigurationError(f"--token-from key: needs --{name}")
        try:
            key: Any = load_pem_private_key(private, None)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                "--token-from key: needs an unencrypted private key"
            ) from error
        self._signer = _signing_key(key, options.kid)
        self._options = options

    @property
    def signer(self) -> SigningKey:
        """The issuer's key."""
        return self._signer

    def token(self) -> str:
        """Return a token of the API's issuer, valid for 15 minutes."""
        return self._make()

    def bound_token(self, key: SigningKey) -> str:
        """Return a token that is bound to a DPoP key."""
        return self._make(cnf={"jkt": key.thumbprint})

    def _make(self, **changes: Any) -> str:  # noqa: ANN401
        options = self._options
        claims = make_claims(options.issuer, options.audience, options.scope, **changes)
        return self.signer.sign(claims, {"typ": "at+jwt"})


class ClientSource(TokenSource):
    """Requests tokens with client credentials.

    Args:
        options: issuer, client and scope.
    """

    def __init__(self, options: SourceOptions) -> None:
        super().__init__()
        for name in ("issuer", "client_id", "client_secret"):
            if not getattr(options, name):
                raise ConfigurationError(f"--token-from client needs --{name.replace('_', '-')}")
        self._options = options
        self._metadata = fetch_metadata(options)

    def token(self) -> str:
        """Return a token of the authorization server."""
        return self._request({})

    def bound_token(self, key: SigningKey) -> str:
        """Return a token that is bound to a DPoP key; empty if the server issues none."""
        if "dpop_signing_alg_values_supported" not in self._metadata:
            return ""
        endpoint = self._metadata["token_endpoint"]
        return self._request({"DPoP": proof(key, "POST", endpoint, "", ath=None)})

    def revoked_token(self) -> str:
        """Return a token that was revoked a moment ago; empty if the server revokes none."""
        endpoint = self._metadata.get("revocation_endpoint")
        if not endpoint:
            return ""
        token = self.token()
        with self._options.new_client() as client:
            answer = client.post(endpoint, data=self._form(token=token))
        return token if answer.is_success else ""

    def _request(self, headers: Mapping[str, str]) -> str:
        form = self._form(grant_type="client_credentials")
        if self._options.scope:
            form["scope"] = self._options.scope
        try:
            with self._options.new_client() as client:
                answer = client.post(self._metadata["token_endpoint"], data=form, headers=headers)
            if not answer.is_success:
                raise ConfigurationError(f"the token endpoint answered {answer.status_code}")
            token: str = answer.json()["access_token"]
        except (LookupError, TypeError, json.JSONDecodeError) as error:
            raise ConfigurationError("the token endpoint gave no access_token") from error
        return token

    def _form(self, **members: str) -> dict[str, str]:
        credentials = {
            "client_id": self._options.client_id,
            "client_secret": self._options.client_secret,
        }
        return members | credentials


def open_source(written: str, options: SourceOptions) -> TokenSource:
    """Return the source that `--token-from` names.

    Args:
        written: `env:NAME`, `file:PATH`, `-`, `client`, or `key:PATH`.
        options: its options.

    Raises:
        ConfigurationError: it is none of these, or lacks an option.
        OSError: the file cannot be read.
    """
    kind, _, value = written.partition(":")
    if kind == "env":
        return TokenSource(os.environ.get(value, "").strip())
    if kind == "file":
        return TokenSource(Path(value).read_text(encoding="utf-8", errors="replace").strip())
    if written == "-":
        return TokenSource(sys.stdin.readline().strip())
    if kind == "client":
        return ClientSource(options)
    if kind == "key":
        return KeySource(Path(value).read_bytes(), options)
    raise ConfigurationError("--token-from: use env:NAME, file:PATH, -, client or key:PATH")


def fetch_metadata(options: SourceOptions) -> dict[str, Any]:
    """Return the metadata of the issuer.

    Raises:
        ConfigurationError: it cannot be fetched.
    """
    issuer = options.issuer
    with options.new_client() as client:
        for url in metadata_urls(issuer):
            try:
                answer = client.get(url)
                members = answer.json() if answer.is_success else None
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                raise ConfigurationError(f"the metadata of {issuer}: {error}") from error
            if isinstance(members, dict) and "jwks_uri" in members:
                return members
    raise ConfigurationError(f"{issuer} has no metadata")


def _signing_key(key: Any, kid: str) -> SigningKey:  # noqa: ANN401 - of any type
    probe = SigningKey("ES256", key) if hasattr(key, "curve") else SigningKey("RS256", key)
    algorithm = min(algorithms_of(probe.bare_jwk) - {"PS256", "Ed25519"})
    return SigningKey(algorithm, key, kid)
