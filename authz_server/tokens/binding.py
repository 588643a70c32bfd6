"""The binding of a token to a key that its holder must prove (RFC 7800)."""

from collections.abc import Collection, Mapping

from authz_server.clients.authentication.method import AuthenticationRequest
from authz_server.clients.cache import ClientEntry
from authz_server.clients.certificates import ClientCertificate
from authz_server.errors import OAuthError
from authz_server.tokens.dpop import DPoPProof, DPoPProofs

PROOF_HEADER = "dpop"
#: A member of ``cnf``: the thumbprint of a DPoP key (RFC 9449, 6.1).
JKT = "jkt"
#: A member of ``cnf``: the thumbprint of a TLS certificate (RFC 8705, 3.1).
X5T = "x5t#S256"
BEARER = "Bearer"
DPOP = "DPoP"


def token_type_of(confirmation: Mapping[str, object] | None) -> str:
    """Return the ``token_type`` of a token with this ``cnf`` (RFC 9449, 5; RFC 8705, 3).

    A token that is bound to a certificate alone is still used by the Bearer scheme.
    """
    return DPOP if confirmation is not None and JKT in confirmation else BEARER


def is_proven(bound: object, proven: Mapping[str, str] | None) -> bool:
    """Return whether a request proves every key that a presented token is bound to.

    Args:
        bound: the ``cnf`` of the presented token; one that names no key cannot be proven.
        proven: the ``cnf`` of the new token, from the proofs of the request; None: there are none.
    """
    if not isinstance(bound, Mapping) or not bound or proven is None:
        return False
    return all(proven.get(name) == value for name, value in bound.items())


class TokenBinder:
    """Finds the keys that the token of a request is bound to.

    Args:
        dpop: checks DPoP proofs; None: proofs are ignored, as by a server without DPoP.
        required: whether the tokens of every client are bound.
    """

    def __init__(self, dpop: DPoPProofs | None, *, required: bool = False) -> None:
        self._dpop = dpop
        self._required = required

    def read_proof(
        self, sender: AuthenticationRequest, targets: Collection[str]
    ) -> DPoPProof | None:
        """Return the request's DPoP proof, not yet used; None if there is none.

        Called before the client is authenticated, so that a client that has to repeat the request
        with a nonce can send the same assertion again.

        Args:
            sender: the form and the headers.
            targets: the normalised URIs of the endpoint.

        Raises:
            OAuthError: ``dpop_proof_...`` or ``dpop_nonce_required``.
        """
        text = sender.headers.get(PROOF_HEADER)
        if text is None or self._dpop is None:
            return None
        try:
            proof = self._dpop.read(text, targets)
            if sender.form.get("dpop_jkt", proof.jkt) != proof.jkt:
                # RFC 9449, 10.1, for whichever request names the key that it is bound to.
                raise OAuthError("dpop_proof_invalid", "dpop_jkt")  # noqa: TRY301
        except OAuthError as refusal:
            refusal.client_id = sender.form.get("client_id", "")
            raise
        return proof

    def confirm(
        self,
        client: ClientEntry,
        proof: DPoPProof | None,
        certificate: ClientCertificate | None = None,
    ) -> Mapping[str, str] | None:
        """Return the ``cnf`` of the client's token; None for a bearer token.

        A token is bound to the certificate of a client that is registered for it, by whichever
        method the client authenticates. It may be bound to a DPoP key too.

        Args:
            client: the authenticated client.
            proof: the request's proof.
            certificate: the certificate of the request's TLS connection.

        Raises:
            OAuthError: ``dpop_proof_missing`` or ``client_certificate_missing``: the client is
                registered for bound tokens alone (RFC 9449, 5.2; RFC 8705, 3.4).
                ``binding_missing``: every token is bound, and the request has no key.
        """
        properties = client.properties
        if proof is None and properties.dpop_bound_access_tokens:
            raise OAuthError("dpop_proof_missing", client_id=client.id)
        takes_certificate = properties.tls_client_certificate_bound_access_tokens or (
            self._required and proof is None
        )
        if not takes_certificate:
            return None if proof is None else {JKT: proof.jkt}
        if certificate is None:
            registered = properties.tls_client_certificate_bound_access_tokens
            code = "client_certificate_missing" if registered else "binding_missing"
            raise OAuthError(code, client_id=client.id)
        bound = {X5T: certificate.thumbprint}
        return bound if proof is None else {JKT: proof.jkt, **bound}

    async def use(self, proof: DPoPProof, client: ClientEntry) -> None:
        """Accept a proof once.

        Raises:
            OAuthError: ``dpop_proof_used``.
            sqlalchemy.exc.SQLAlchemyError: the database cannot store the use.
        """
        if self._dpop is not None:
            await self._dpop.use(proof, client.id)

    def make_nonce(self, sender_headers: Mapping[str, str]) -> str:
        """Return the nonce to send to the sender of a proof; empty if none is needed."""
        if self._dpop is None or PROOF_HEADER not in sender_headers:
            return ""
        return self._dpop.make_nonce()
