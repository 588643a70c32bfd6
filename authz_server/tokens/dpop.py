"""DPoP proofs: signed statements that the sender of a request holds a key (RFC 9449)."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from authz_server.database.single_use import SingleUse
from authz_server.errors import OAuthError
from authz_server.tokens.dpop_nonces import DPoPNonces
from authz_server.tokens.target_uris import normalise_target
from keys.errors import KeysError, TokenRefusedError
from keys.jose.compact import decode_segment, encode_segment, parse_json_object, split_segments
from keys.jose.foreign import ForeignKey, parse_foreign
from keys.jose.signatures import Verifier

#: Enough for a key and a signature of RSA with 4096 bits.
MAXIMUM_PROOF_CHARACTERS = 4_096
MAXIMUM_JTI_CHARACTERS = 256
PROOF_TYPE = "dpop+jwt"
#: The method of a token request.
_TOKEN_METHOD = "POST"  # noqa: S105 - a method
_REMEMBERED_KEYS = 1_024
_SINGLE_USE = "dpop"


class DPoPProof(NamedTuple):
    """A proof that is right for its request, apart from earlier uses.

    Attributes:
        jkt: the RFC 7638 thumbprint of its key.
        jti: its id.
        expires_at: the end of the time in which it is accepted, in seconds since 1970.
    """

    jkt: str
    jti: str
    expires_at: float


class _Key(NamedTuple):
    verify: Verifier
    jkt: str


class DPoPProofs:
    """Checks proofs as RFC 9449, 4.3 and 7 require of token endpoints and protected resources.

    Args:
        algorithms: the accepted values of ``alg``.
        maximum_age_seconds: how long after its creation a proof is accepted.
        clock_skew_seconds: how far ahead of the clock a proof may be created.
        nonces: the nonces that each proof must hold one of; None: no nonce is required. The time of
            a nonce then takes the place of ``iat`` (RFC 9449, 11.1).
        single_use: remembers accepted proofs.
        clock: returns the present time.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        algorithms: Collection[str],
        maximum_age_seconds: int,
        clock_skew_seconds: int,
        nonces: DPoPNonces | None,
        single_use: SingleUse,
        clock: Callable[[], datetime],
    ) -> None:
        self._algorithms = frozenset(algorithms)
        self._maximum_age_seconds = maximum_age_seconds
        self._clock_skew_seconds = clock_skew_seconds
        self._nonces = nonces
        self._single_use = single_use
        self._clock = clock
        # By the header of a proof, which is the same for all proofs of a key.
        self._keys: dict[bytes, _Key] = {}

    def read(
        self,
        text: str,
        targets: Collection[str],
        *,
        method: str = _TOKEN_METHOD,
        access_token: str | None = None,
    ) -> DPoPProof:
        """Return the proof in a ``DPoP`` header.

        Args:
            text: the value of the header. Several headers are joined by commas and thus malformed.
            targets: the normalised URIs of the endpoint.
            method: the method of the request.
            access_token: the token that is presented with the proof, whose hash it must hold
                (RFC 9449, 7); None: none is.

        Raises:
            OAuthError: ``dpop_proof_invalid``, ``dpop_proof_outside_window`` or
                ``dpop_nonce_required``.
        """
        try:
            header, payload, signature = split_segments(text, MAXIMUM_PROOF_CHARACTERS)
            claims = parse_json_object(decode_segment(payload))
            key = self._keys.get(header)
            is_new = key is None
            if key is None:
                key = self._load_key(text)
            jti = _require_request(claims, targets, method)
            if access_token is not None and claims.get("ath") != _hash(access_token):
                raise TokenRefusedError("ath")
            expires_at = self._require_time(claims)
            key.verify(decode_segment(signature), header + b"." + payload)
        except KeysError as error:
            raise OAuthError("dpop_proof_invalid", str(error)) from None
        if is_new:
            self._remember(header, key)
        return DPoPProof(key.jkt, jti, expires_at)

    async def use(self, proof: DPoPProof, client_id: str) -> None:
        """Accept a proof once, over all processes and nodes.

        Raises:
            OAuthError: ``dpop_proof_used``.
            sqlalchemy.exc.SQLAlchemyError: the database cannot store the use.
        """
        # By key, so that no other client can use an id up.
        value = f"{proof.jkt}\0{proof.jti}".encode()
        if not await self._single_use.use(_SINGLE_USE, value, proof.expires_at):
            raise OAuthError("dpop_proof_used", client_id=client_id)

    def make_nonce(self) -> str:
        """Return the nonce to send with a response; empty if no nonce is required."""
        return "" if self._nonces is None else self._nonces.make(self._clock().timestamp())

    def _load_key(self, text: str) -> _Key:
        token = parse_foreign(text, MAXIMUM_PROOF_CHARACTERS, permitted=frozenset({"jwk"}))
        if token.header.get("typ") != PROOF_TYPE:
            raise TokenRefusedError("typ")
        alg: str = token.header["alg"]
        if alg not in self._algorithms:
            raise TokenRefusedError("alg")
        key = ForeignKey(token.header.get("jwk"))
        return _Key(key.verifier(alg), key.thumbprint)

    def _remember(self, header: bytes, key: _Key) -> None:
        if len(self._keys) >= _REMEMBERED_KEYS:
            self._keys.clear()
        self._keys[header] = key

    def _require_time(self, claims: Mapping[str, Any]) -> float:
        """Return when the proof expires; raise OAuthError if it is not current."""
        now = self._clock().timestamp()
        latest_start = now + self._clock_skew_seconds
        created = _require_instant(claims, "iat")
        if "exp" in claims and _require_instant(claims, "exp") <= now - self._clock_skew_seconds:
            raise OAuthError("dpop_proof_outside_window", "exp")
        if "nbf" in claims and _require_instant(claims, "nbf") > latest_start:
            raise OAuthError("dpop_proof_outside_window", "nbf")
        if self._nonces is not None:
            nonce = claims.get("nonce")
            expires_at = self._nonces.find_expiry(nonce, now) if isinstance(nonce, str) else None
            if expires_at is None:
                raise OAuthError("dpop_nonce_required")
            return expires_at
        expires_at = float(created + self._maximum_age_seconds)
        if created > latest_start or expires_at < now:
            raise OAuthError("dpop_proof_outside_window", "iat")
        return expires_at


def _hash(access_token: str) -> str:
    return encode_segment(sha256(access_token.encode()).digest()).decode()


def _require_request(claims: Mapping[str, Any], targets: Collection[str], method: str) -> str:
    """Return the ``jti``; raise TokenRefusedError if the proof is not for the request."""
    jti, target = claims.get("jti"), claims.get("htu")
    if not isinstance(jti, str) or not 0 < len(jti) <= MAXIMUM_JTI_CHARACTERS:
        raise TokenRefusedError("jti")
    if claims.get("htm") != method:
        raise TokenRefusedError("htm")
    if not isinstance(target, str) or (
        target not in targets and normalise_target(target) not in targets
    ):
        raise TokenRefusedError("htu")
    return jti


def _require_instant(claims: Mapping[str, Any], name: str) -> int:
    value = claims.get(name)
    if type(value) is not int:
        raise TokenRefusedError(name)
    return value
