"""A test signature: whether a key that is published is the one that its backend signs with."""

import time
from dataclasses import dataclass

from authz_server.assembly import Services
from authz_server.audit.events import SignatureMade
from authz_server.audit.sink import AuditUnavailable
from authz_server.cli.output import echo_status
from keys.backend import KeyBackend, TracedSignature
from keys.errors import BackendBroken, TokenRefusedError
from keys.key_set import read_ring
from keys.signer import PROOF_INPUT
from keys.signing_key import RingSnapshot, SigningKey


@dataclass(frozen=True, slots=True)
class Proof:
    """A signature over a fixed text that is no token, checked here.

    Attributes:
        seconds: How long it took.
        request_id: The remote backend's id of the call; empty for others.
    """

    seconds: float
    request_id: str


def prove(backend: KeyBackend, ring: RingSnapshot, key: SigningKey) -> Proof:
    """Have ``backend`` sign with ``key`` and check that with the published key.

    Raises:
        BackendError: It does not sign, or with another key.
    """
    known = next((each for each in read_ring(ring).keys if each.kid == key.kid), None)
    if known is None:
        raise BackendBroken(f"{key.kid} is not in the JWKS")
    began = time.monotonic()
    signature = backend.sign(ring.name, str(key.version), key.alg, (PROOF_INPUT,))[0]
    took = time.monotonic() - began
    try:
        known.verify(signature, PROOF_INPUT)
    except TokenRefusedError:
        raise BackendBroken(f"{key.kid} did not make the signature that was asked of it") from None
    request_id = signature.request_id if isinstance(signature, TracedSignature) else ""
    return Proof(took, request_id)


def record_signature(
    services: Services, *, actor: str, purpose: str, kid: str, request_id: str
) -> None:
    """Record a call for a signature that is no token's: so the Vault's log is accounted for."""
    if not request_id:
        return
    event = SignatureMade(client_id=actor, purpose=purpose, kid=kid, backend_request_id=request_id)
    try:
        services.record(event)
    except AuditUnavailable as error:
        echo_status(f"The signature {request_id} is not recorded: {error.detail}")
