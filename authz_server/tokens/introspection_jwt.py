"""Introspection responses as signed JWTs (RFC 9701)."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from authz_server.errors import OAuthError
from authz_server.tokens.issuer import sign_waiting
from keys.errors import BackendUnavailable, KeysError
from keys.ring import KeyRings, SignedToken

INTROSPECTION_TYPE = "token-introspection+jwt"
_encode = msgspec.json.Encoder().encode


class IntrospectionSigner:
    """Signs introspection responses for their caller.

    Args:
        issuer: the ``iss``.
        key_rings: sign.
        default_ring: the ring for callers without a ring of their own.
        clock: returns the present time.
    """

    def __init__(
        self,
        issuer: str,
        key_rings: KeyRings,
        default_ring: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._issuer = issuer
        self._key_rings = key_rings
        self._default_ring = default_ring
        self._clock = clock

    async def sign(self, answer: dict[str, Any], audience: str, ring: str | None) -> SignedToken:
        """Return the response as a signed JWT (RFC 9701, 5).

        The JWT has neither ``exp`` nor ``sub``, so that it cannot pass for an access token. The key
        ring counts a lifetime of one second for it.

        Args:
            answer: the members of RFC 7662.
            audience: the caller.
            ring: the key ring of the caller's tokens; None: the default ring.

        Raises:
            OAuthError: no key can sign.
        """
        claims = {
            "iss": self._issuer,
            "aud": audience,
            "iat": int(self._clock().timestamp()),
            "token_introspection": answer,
        }
        try:
            return await sign_waiting(
                self._key_rings, ring or self._default_ring, _encode(claims), INTROSPECTION_TYPE, 1
            )
        except BackendUnavailable as error:
            raise OAuthError(
                "temporarily_unavailable", str(error), retry_after_seconds=error.retry_after
            ) from error
        except KeysError as error:
            raise OAuthError("server_error", str(error)) from error
