"""Registered issuers of a test: a cluster, a provider with discovery, and a SPIFFE trust domain."""

import json
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from joserfc.jwk import Key

from support.assertions import Signer, jwks_of, new_key
from support.scripted_server import ScriptedServer, answer_with

CLUSTER = "https://kubernetes.default.svc.cluster.local"
TRUST_DOMAIN = "spiffe://example.org"
CLUSTER_TOKEN = "token-of-the-server-itself"


class Issuers:
    """A context manager: the issuers' servers and files, and tokens that they sign.

    Args:
        directory: holds their files.

    `clock` returns the present time; a test sets that of its application.
    """

    def __init__(self, directory: Path) -> None:
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.directory = directory
        self.bundle_use = "jwt-svid"
        self._server = ScriptedServer(self._answer)
        self.fetched: list[str] = []
        self.cluster_key = new_key("RS256")
        self.provider_key = new_key("ES256")
        self.spiffe_key = new_key("ES256")
        self._documents: dict[str, dict[str, Any]] = {}
        self.provider = self._server.address
        (directory / "cluster-token").write_text(CLUSTER_TOKEN)
        self._bundle = directory / "bundle.json"
        self.publish()

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.__exit__(*error)

    def publish(self, provider_kid: str = "p") -> None:
        """Publish the present keys of every issuer."""
        jwks_uri = f"{self.provider}/jwks"
        self._documents = {
            "/cluster": jwks_of(self.cluster_key, kid="c", alg="RS256", use="sig"),
            "/.well-known/openid-configuration": {"issuer": self.provider, "jwks_uri": jwks_uri},
            "/jwks": jwks_of(self.provider_key, kid=provider_kid),
        }
        bundle = jwks_of(self.spiffe_key, kid="s", use=self.bundle_use)
        other = jwks_of(new_key("ES256"), use="x509-svid")
        bundle["keys"] += other["keys"]
        self._bundle.write_text(json.dumps(bundle | {"spiffe_sequence": 1}))

    def wipe(self) -> None:
        """Publish an empty set as the keys of the provider."""
        self._documents["/jwks"] = {"keys": []}

    def settings(self) -> dict[str, Any]:
        """Return the tables of the settings."""
        return {
            "outbound": {"plain_http": True, "minimum_cache_seconds": 1},
            "issuers": {
                "cluster": {
                    "issuer": CLUSTER,
                    "jwks_uri": f"{self._server.address}/cluster",
                    "token_file": "cluster-token",
                    "maximum_age_seconds": 3_000,
                },
                "provider": {"issuer": self.provider, "maximum_lifetime_seconds": 600},
                "spiffe": {"issuer": TRUST_DOMAIN, "jwks_file": "bundle.json"},
            },
        }

    def cluster_signer(self, subject: str, **claims: Any) -> Signer:
        """Return a signer of service account tokens."""
        return self._signer(self.cluster_key, "RS256", "c", iss=CLUSTER, sub=subject, **claims)

    def provider_signer(self, subject: str, **claims: Any) -> Signer:
        """Return a signer of tokens of the provider."""
        named = {"iss": self.provider, "sub": subject}
        return self._signer(self.provider_key, "ES256", "p", **named, **claims)

    def spiffe_signer(self, subject: str, **claims: Any) -> Signer:
        """Return a signer of JWT-SVIDs."""
        return self._signer(self.spiffe_key, "ES256", "s", iss=None, sub=subject, **claims)

    def _signer(self, key: Key, alg: str, kid: str, **claims: Any) -> Signer:
        signer = _OfOther("", key, lambda: self.clock().timestamp(), alg, kid)
        signer.usual = claims
        return signer

    def _answer(self, connection: socket.socket, request: bytes) -> bool:
        path = request.split(b" ")[1].decode()
        self.fetched.append(path)
        is_denied = path == "/cluster" and CLUSTER_TOKEN.encode() not in request
        leaks = path == "/jwks" and b"Authorization" in request
        status = 403 if is_denied or leaks or path not in self._documents else 200
        body = json.dumps(self._documents.get(path, {})).encode()
        answer_with(body, status)(connection, request)
        return False


class _OfOther(Signer):
    """A signer whose usual claims are another party's."""

    usual: Mapping[str, Any]

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of the issuer with changes; None takes a claim away."""
        return super().claims(**{**self.usual, **changes})
