"""The claims of an access token (RFC 9068, 2.2) and the instant hidden in its ``jti``."""

import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec

# 7 bytes count microseconds since 1970 until the year 4253; 17 random bytes are 136 bits.
_INSTANT_BYTES = 7
_RANDOM_BYTES = 17
_JTI = re.compile(r"[A-Za-z0-9_-]{1,64}")
JTI_CHARACTERS = (_INSTANT_BYTES + _RANDOM_BYTES) * 4 // 3


class AccessTokenClaims(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What an access token says. Times are whole seconds since 1970 UTC.

    ``further`` holds what plugins added, under names that are not ours.
    """

    iss: str
    sub: str
    client_id: str
    aud: str | tuple[str, ...]
    iat: int
    exp: int
    jti: str
    scope: str
    nbf: int = 0
    cnf: dict[str, Any] | None = None

    @property
    def audience(self) -> tuple[str, ...]:
        """The audience, one or several."""
        return (self.aud,) if isinstance(self.aud, str) else self.aud

    def is_sound(self) -> bool:
        """Tell whether the strings are such as this server writes, fit for a database and a log."""
        return (
            _JTI.fullmatch(self.jti) is not None
            and self.sub.isprintable()
            and self.client_id.isprintable()
            and self.scope.isprintable()
            and "" not in {self.sub, self.client_id, self.scope}
        )

    @property
    def issued_at_microseconds(self) -> int:
        """When the token was made, more exactly than ``iat`` can say."""
        return read_instant(self.jti, self.iat)


def new_jti(now_microseconds: int) -> str:
    """Return an id of 32 characters: the instant, then 136 bits from the system's generator.

    A cut-off compares instants, and the whole seconds of ``iat`` could not tell a token issued just
    before a revocation from one issued just after it. The order also keeps the index of revoked
    tokens compact.
    """
    return urlsafe_b64encode(
        now_microseconds.to_bytes(_INSTANT_BYTES, "big") + os.urandom(_RANDOM_BYTES)
    ).decode()


def read_instant(jti: str, iat: int) -> int:
    """Return the microsecond at which the token of this ``jti`` was made.

    Where the id does not agree with ``iat`` (seconds), the start of that second counts, so that a
    cut-off rather takes a token too many.
    """
    try:
        instant = int.from_bytes(urlsafe_b64decode(jti)[:_INSTANT_BYTES], "big")
    except ValueError:
        instant = 0
    return instant if instant // 1_000_000 == iat else iat * 1_000_000
