"""JWTs that a command signs: client assertions (RFC 7523) and DPoP proofs (RFC 9449)."""

import json
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from authz_server.cli.remote.connection import RemoteError, Response
from keys.jose.algorithms import get_algorithm
from keys.jose.compact import encode_segment
from keys.jose.jwk import public_jwk
from keys.jose.signatures import generate_private_key, make_signer

_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LIFETIME_SECONDS = 60
_REFUSED = (400, 401)
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


def sign_jwt(key: Any, alg: str, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:  # noqa: ANN401 - a private key
    """Return a signed JWT (RFC 7519).

    Args:
        key: the private key.
        alg: its algorithm.
        header: further members of the header.
        claims: the claims.
    """
    parts = ({"alg": alg, **header}, claims)
    signed = b".".join(encode_segment(json.dumps(part).encode()) for part in parts)
    signature = make_signer(key, get_algorithm(alg))(signed)
    return (signed + b"." + encode_segment(signature)).decode()


class SigningClient:
    """Signs the assertions of a client.

    Args:
        pem: its private key in PEM, without a password.

    Raises:
        RemoteError: it is another text.
    """

    def __init__(self, pem: bytes) -> None:
        try:
            self._key = load_pem_private_key(pem, password=None)
        except (TypeError, ValueError) as error:
            raise RemoteError(
                "--private-key-file: the file has no private key in PEM without a password."
            ) from error

    def assert_identity(
        self, client_id: str, issuer: str, supported: Collection[str]
    ) -> dict[str, str]:
        """Return the parameters with which the client authenticates.

        Args:
            client_id: the client.
            issuer: the audience.
            supported: the algorithms that the server accepts; empty: it does not publish them.

        Raises:
            RemoteError: the server accepts no algorithm of the key.
        """
        fitting = list(self._algorithms())
        alg = next((each for each in fitting if not supported or each in supported), None)
        if alg is None:
            raise RemoteError("--private-key-file: the server accepts no algorithm of this key.")
        now = int(time.time())
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": issuer,
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "exp": now + _LIFETIME_SECONDS,
        }
        return {
            "client_id": client_id,
            "client_assertion_type": _ASSERTION,
            "client_assertion": sign_jwt(self._key, alg, {"typ": "JWT"}, claims),
        }

    def _algorithms(self) -> Iterator[str]:
        """Yield the algorithms of the key, the preferred one first."""
        match self._key:
            case ec.EllipticCurvePrivateKey() as key if key.curve.name in _CURVES:
                yield _CURVES[key.curve.name]
            case ed25519.Ed25519PrivateKey():
                yield "EdDSA"
            case rsa.RSAPrivateKey():
                yield from ("PS256", "RS256")


class ProofKey:
    """A key of this process, to which its tokens are bound; it makes DPoP proofs."""

    _ALG = "ES256"

    def __init__(self) -> None:
        self._key = generate_private_key(get_algorithm(self._ALG))
        self._header = {"typ": "dpop+jwt", "jwk": public_jwk(self._key)}
        self._nonce = ""

    def prove(self, method: str, url: str, access_token: str = "") -> str:
        """Return a proof for a request (RFC 9449, 4.2).

        Args:
            method: its method.
            url: its URL without the query.
            access_token: the token that it presents; empty: it asks for one.
        """
        claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": url,
            "iat": int(time.time()),
        }
        if access_token:
            digest = sha256(access_token.encode()).digest()
            claims["ath"] = encode_segment(digest).decode()
        if self._nonce:
            claims["nonce"] = self._nonce
        return sign_jwt(self._key, self._ALG, self._header, claims)

    def note_nonce(self, response: Response) -> bool:
        """Keep the nonce of a response; return whether the request was refused for want of it."""
        nonce = response.headers.get("dpop-nonce", "")
        if not nonce or nonce == self._nonce:
            return False
        self._nonce = nonce
        return response.status in _REFUSED
