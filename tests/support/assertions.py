"""Client assertions as clients sign them (RFC 7523), with a JOSE library of another maker."""

import json
import secrets
import warnings
from collections.abc import Callable
from typing import Any

from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from support.parties import ACTOR, Parties
from support.settings_file import ISSUER

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS = ("ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA", "Ed25519")
HMAC_ALGORITHMS = ("HS256", "HS384", "HS512")
METHODS = ("private_key_jwt", "client_secret_jwt")

_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_REGISTRY = jws.JWSRegistry(
    algorithms=[*ALGORITHMS, *HMAC_ALGORITHMS, "RS256"], strict_check_header=False
)


def new_key(alg: str = "ES256", *, bits: int = 2_048) -> Key:
    """Return a new private key for `alg`."""
    if alg in _CURVES:
        return ECKey.generate_key(_CURVES[alg], auto_kid=False)
    if alg.startswith("Ed"):
        return OKPKey.generate_key("Ed25519", auto_kid=False)
    return RSAKey.generate_key(bits, auto_kid=False)


def jwks_of(*keys: Key, **members: Any) -> dict[str, Any]:
    """Return the public halves as a JWK set, with further members in each."""
    return {"keys": [key.as_dict(private=False) | members for key in keys]}


class Signer:
    """A client that signs assertions; each form holds a new one.

    Args:
        client_id: its id.
        key: its private key or its secret.
        clock: returns the present time, in seconds since 1970.
        alg: the algorithm of its signatures.
        kid: the `kid` of its assertions; None: they have none.
    """

    def __init__(
        self,
        client_id: str,
        key: Key | str,
        clock: Callable[[], float],
        alg: str = "ES256",
        kid: str | None = None,
    ) -> None:
        self.id = client_id
        self.key = OctKey.import_key(key) if isinstance(key, str) else key
        self.alg = alg
        self.now = clock
        self.kid = kid

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return sound claims with changes; None takes a claim away."""
        now = int(self.now())
        usual = {
            "iss": self.id,
            "sub": self.id,
            "aud": ISSUER,
            "iat": now,
            "exp": now + 60,
            "jti": secrets.token_urlsafe(12),
        }
        return {name: value for name, value in (usual | changes).items() if value is not None}

    def assertion(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """Return an assertion; members of `header` and claims are laid over the usual ones."""
        return self.sign(json.dumps(self.claims(**changes)), header)

    def sign(self, payload: str | bytes, header: dict[str, Any] | None = None) -> str:
        """Return any payload signed with the key, under the usual header with changes."""
        usual = {"alg": self.alg, "kid": self.kid} | (header or {})
        kept = {name: value for name, value in usual.items() if value is not None}
        with warnings.catch_warnings():
            # The name EdDSA is deprecated; clients use it all the same.
            warnings.simplefilter("ignore", SecurityWarning)
            return jws.serialize_compact(kept, payload, self.key, registry=_REGISTRY)

    def form(self, assertion: str | None = None, **fields: str) -> dict[str, str]:
        """Return the form fields that authenticate the client."""
        sent = self.assertion() if assertion is None else assertion
        return {"client_assertion_type": JWT_BEARER, "client_assertion": sent} | fields

    def headers(self) -> dict[str, str]:
        """Return no headers: an assertion travels in the form."""
        return {}


def make_signer(
    parties: Parties,
    client_id: str,
    clock: Callable[[], float],
    alg: str = "ES256",
    **values: Any,
) -> Signer:
    """Register a client that signs with `alg`, by its own key or by a secret; return it."""
    parties.import_scopes()
    symmetric = alg in HMAC_ALGORITHMS
    key = None if symmetric else new_key(alg)
    fields = {
        "name": client_id,
        "authentication_method": METHODS[symmetric],
        "allowed_scopes": ["mapper/link", "mapper/resolve"],
        "default_scopes": ["mapper/link"],
        "properties": {} if key is None else {"jwks": jwks_of(key, kid="key-1")},
    }
    with parties.change() as (services, session):
        services.clients.create_client(session, actor=ACTOR, id=client_id, **fields | values)
        if key is None:
            _, key = services.clients.add_secret(session, client_id, actor=ACTOR)
            parties.watch.note_basic(client_id, key)
    return Signer(client_id, key, clock, alg, None if symmetric else "key-1")
