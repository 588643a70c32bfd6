"""DPoP proofs as a client makes them (RFC 9449, 4), with a JOSE library of another maker."""

import json
import secrets
import warnings
from typing import Any

from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

from support.forged_tokens import segment
from support.settings_file import ISSUER

_KINDS = {
    "ES256": (ECKey, "P-256"),
    "ES384": (ECKey, "P-384"),
    "ES512": (ECKey, "P-521"),
    "EdDSA": (OKPKey, "Ed25519"),
    "Ed25519": (OKPKey, "Ed25519"),
}
_REGISTRY = jws.JWSRegistry(algorithms=[*_KINDS, "PS256", "PS384", "PS512", "RS256"])


class ProofKey:
    """A client's key.

    Args:
        alg: the algorithm of its proofs.
        bits: the size of an RSA key.
    """

    def __init__(self, alg: str = "ES256", bits: int = 2_048) -> None:
        self.alg = alg
        kind, variety = _KINDS.get(alg, (RSAKey, bits))
        self.key = kind.generate_key(variety, auto_kid=False)
        self.jwk: dict[str, Any] = self.key.as_dict(private=False)
        self.thumbprint: str = self.key.thumbprint()

    def prove(
        self,
        now: float,
        path: str = "/oauth2/token",
        *,
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Return a proof for a POST to `path` of the server.

        Members of `header`, and further claims, are laid over the usual ones; None takes one away.
        """
        usual = {
            "jti": secrets.token_urlsafe(12),
            "htm": "POST",
            "htu": f"{ISSUER}{path}",
            "iat": int(now),
        }
        kept = {name: value for name, value in (usual | claims).items() if value is not None}
        return self.sign(json.dumps(kept), header)

    def sign(self, payload: str | bytes, header: dict[str, Any] | None = None) -> str:
        """Return any payload signed with the key, under the usual header with changes."""
        usual = {"typ": "dpop+jwt", "alg": self.alg, "jwk": self.jwk} | (header or {})
        kept = {name: value for name, value in usual.items() if value is not None}
        data = payload if isinstance(payload, bytes) else payload.encode()
        signing_input = f"{segment(kept)}.{segment(data)}"
        with warnings.catch_warnings():
            # RFC 9864 renames EdDSA, which clients still send.
            warnings.simplefilter("ignore", SecurityWarning)
            algorithm = _REGISTRY.get_alg(self.alg)
        return f"{signing_input}.{segment(algorithm.sign(signing_input.encode(), self.key))}"
