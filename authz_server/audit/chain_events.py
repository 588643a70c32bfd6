"""Events of the hash chains of audit records."""

from typing import Literal

from authz_server.audit.event import Event


class AuditCheckpoint(Event, frozen=True, kw_only=True, tag="audit.checkpoint"):
    """The heads of the chains of audit records were signed.

    Attributes:
        kid: the signing key's id.
        backend_request_id: the id of the signing request in the remote key backend's audit log;
            empty for a key in this process.
        checkpoint: the signed heads, a compact JWS of the type ``audit-checkpoint+jwt``.
    """

    kid: str
    backend_request_id: str = ""
    checkpoint: str
    outcome: Literal["success"] = "success"


class AuditContinued(Event, frozen=True, kw_only=True, tag="audit.continued"):
    """A process continues its records in a new file, after the old one was rotated."""

    outcome: Literal["success"] = "success"
