"""Check a signature: is a published key the one that its backend signs with?"""

import time
from dataclasses import dataclass

from authz_server.audit.events import SignatureMade
from authz_server.audit.sink import AuditUnavailable
from authz_server.operations.keys.context import KeyContext
from keys.backend import KeyBackend, TracedSignature
from keys.errors import BackendBroken, TokenRefusedError
from keys.key_set import read_ring
from keys.signer import PROOF_INPUT
from keys.signing_key import RingSnapshot, SigningKey


@dataclass(frozen=True, slots=True)
class CheckedSignature:
    """A signature over a fixed text that cannot be a token, checked here.

    Attributes:
        seconds: How long it took.
        request_id: The remote backend's id of the call; empty for others.
    """

    seconds: float
    request_id: str


def check_signature(backend: KeyBackend, ring: RingSnapshot, key: SigningKey) -> CheckedSignature:
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
    return CheckedSignature(took, request_id)


def record_signature(context: KeyContext, *, purpose: str, kid: str, request_id: str) -> None:
    """Record a signature that is not a token's, so that the Vault's log is accounted for.

    A record that cannot be written is a remark of the context.
    """
    if not request_id:
        return
    event = SignatureMade(
        client_id=context.actor, purpose=purpose, kid=kid, backend_request_id=request_id
    )
    try:
        context.services.record(event)
    except AuditUnavailable as error:
        context.notices.remarks.append(
            f"The signature {request_id} is not recorded: {error.detail}"
        )
