"""Check that a backend signs with the published key."""

import time
from dataclasses import dataclass

from authz_server.audit.events import SignatureMade
from authz_server.audit.notifier import AuditUnavailable
from authz_server.operations.keys.context import KeyContext
from keys.backend import KeyBackend, TracedSignature
from keys.errors import BackendBroken, TokenRefusedError
from keys.key_set import read_ring
from keys.signer import PROOF_INPUT
from keys.signing_key import RingSnapshot, SigningKey


@dataclass(frozen=True, slots=True)
class CheckedSignature:
    """A verified signature over a fixed text that cannot be a token.

    Attributes:
        seconds: the time that it took.
        request_id: the id of the call at a remote backend; empty for others.
    """

    seconds: float
    request_id: str


def check_signature(backend: KeyBackend, ring: RingSnapshot, key: SigningKey) -> CheckedSignature:
    """Sign with ``key`` at ``backend``, and verify the signature with the published key.

    Raises:
        BackendError: it does not sign, or signs with another key.
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
    """Record a signature that is not a token's, to match it with the Vault's audit log.

    If the record cannot be written, a remark is added to the context.
    """
    if not request_id:
        return
    event = SignatureMade(
        client_id=context.actor, purpose=purpose, kid=kid, backend_request_id=request_id
    )
    try:
        context.services.notify(event)
    except AuditUnavailable as error:
        context.notices.remarks.append(
            f"The signature {request_id} is not recorded: {error.detail}"
        )
