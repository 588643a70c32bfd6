"""A key that signs checkpoints of audit records, and the reader that knows it."""

import msgspec

from authz_server.audit.checkpoints import CHECKPOINT_TYPE
from authz_server.audit.findings import CheckpointReader
from keys.jose.algorithms import get_algorithm
from keys.jose.compact import encode_header, encode_segment
from keys.jose.signatures import generate_private_key, make_signer, make_verifier
from keys.ring import SignedToken

_ES256 = get_algorithm("ES256")


class CheckpointKey:
    """An ES256 key with an id."""

    def __init__(self, kid: str = "checkpoint-key") -> None:
        self.kid = kid
        self._key = generate_private_key(_ES256)

    def sign(self, payload: bytes, typ: str = CHECKPOINT_TYPE) -> SignedToken:
        """Return the payload as a compact JWS."""
        signing_input = encode_header("ES256", self.kid, typ) + encode_segment(payload)
        signature = make_signer(self._key, _ES256)(signing_input)
        return SignedToken((signing_input + b"." + encode_segment(signature)).decode(), self.kid)

    def checkpoint(self, **members: object) -> str:
        """Return a signed checkpoint with these members."""
        payload = {"iat": 1_900_000_000, "writer": "w", "sequence": 1, "hash": ""} | members
        return self.sign(msgspec.json.encode(payload)).token

    def reader(self) -> CheckpointReader:
        """Return a reader that knows this key alone."""
        verifier = make_verifier(self._key.public_key(), _ES256)
        return CheckpointReader(lambda kid: verifier if kid == self.kid else None)
