"""An authenticator in software (WebAuthn), for the answers that no browser would send."""

import hashlib
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from webauthn.helpers import encode_cbor

USER_PRESENT, USER_VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def encode(data: bytes) -> str:
    """Return base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Return the bytes of base64url without padding."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Passkey:
    """A passkey: `counter` is what its next signature holds."""

    id: bytes
    key: EllipticCurvePrivateKey
    user_handle: bytes
    counter: int = 0


class Authenticator:
    """Makes and uses passkeys at an origin; `flags` is what it claims of its user."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.flags = USER_PRESENT | USER_VERIFIED
        self.passkeys: list[Passkey] = []

    def create(self, options: dict[str, Any], **client_data: Any) -> dict[str, Any]:
        """Return the answer of `navigator.credentials.create`."""
        passkey = Passkey(
            secrets.token_bytes(32),
            generate_private_key(SECP256R1()),
            decode(options["user"]["id"]),
        )
        self.passkeys.append(passkey)
        numbers = passkey.key.public_key().public_numbers()
        public = {
            1: 2,
            3: -7,
            -1: 1,
            -2: numbers.x.to_bytes(32, "big"),
            -3: numbers.y.to_bytes(32, "big"),
        }
        data = self._data(passkey, ATTESTED) + bytes(16)
        data += len(passkey.id).to_bytes(2, "big") + passkey.id + encode_cbor(public)
        attestation = encode_cbor({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client_data("webauthn.create", options, client_data)
        response = {
            "clientDataJSON": encode(client),
            "attestationObject": encode(attestation),
            # Values that are not known, or no text, are left out.
            "transports": ["internal", "unheard-of", [], 1],
        }
        return self._answer(passkey, response)

    def get(
        self, options: dict[str, Any], passkey: Passkey | None = None, **client_data: Any
    ) -> dict[str, Any]:
        """Return the answer of `navigator.credentials.get`."""
        used = self.passkeys[-1] if passkey is None else passkey
        used.counter += 1
        data = self._data(used)
        client = self._client_data("webauthn.get", options, client_data)
        signature = used.key.sign(data + hashlib.sha256(client).digest(), ECDSA(SHA256()))
        response = {
            "clientDataJSON": encode(client),
            "authenticatorData": encode(data),
            "signature": encode(signature),
            "userHandle": encode(used.user_handle),
        }
        return self._answer(used, response)

    def _data(self, passkey: Passkey, further: int = 0) -> bytes:
        host = urlsplit(self.origin).hostname or ""
        digest = hashlib.sha256(host.encode()).digest()
        return digest + bytes([self.flags | further]) + passkey.counter.to_bytes(4, "big")

    def _client_data(self, kind: str, options: dict[str, Any], further: dict[str, Any]) -> bytes:
        usual = {"type": kind, "challenge": options["challenge"], "origin": self.origin}
        return json.dumps(usual | further).encode()

    def _answer(self, passkey: Passkey, response: dict[str, Any]) -> dict[str, Any]:
        name = encode(passkey.id)
        return {"id": name, "rawId": name, "type": "public-key", "response": response}
