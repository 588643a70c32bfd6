"""Claims of an access token (RFC 9068, 2.2), and the time of issue encoded in ``jti``."""

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


class Origin(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A token of this server that another token was exchanged from (RFC 8693).

    Attributes:
        jti: its id.
        client_id: the client that it was issued to.
        kid: the key that signed it; empty for a reference token.
        iat: its time of issue.
        acts: true for an actor token.
        aud: of its audiences those that the other token does not have, as the subjects of cut-offs.
    """

    jti: str
    client_id: str
    kid: str = ""
    iat: int
    acts: bool = False
    aud: tuple[str, ...] = ()


class AccessTokenClaims(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The claims of an access token. Times are whole seconds since 1970 UTC."""

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
    sender_id: str = ""
    message_cnf: dict[str, Any] | None = None
    act: dict[str, Any] | None = None
    may_act: dict[str, Any] | None = None
    # Of any type: a plugin of an earlier release may have written it.
    sub_id: Any = None
    authorization_details: tuple[dict[str, Any], ...] = ()
    exchanged_from: tuple[Origin, ...] = ()

    @property
    def audience(self) -> tuple[str, ...]:
        """The audience as a tuple."""
        return (self.aud,) if isinstance(self.aud, str) else self.aud

    def is_sound(self) -> bool:
        """Return whether the strings have the form that this server writes.

        Such strings are safe to store in a database and to log.
        """
        return (
            _JTI.fullmatch(self.jti) is not None
            and self.sub.isprintable()
            and self.client_id.isprintable()
            and self.scope.isprintable()
            and "" not in {self.sub, self.client_id, self.scope}
        )

    @property
    def issued_at_microseconds(self) -> int:
        """The time of issue in microseconds since 1970, more precise than ``iat``."""
        return read_instant(self.jti, self.iat)


def new_jti(now_microseconds: int) -> str:
    """Return an id of 32 characters: the time of issue, then 136 random bits.

    A cut-off compares times of issue. The whole seconds of ``iat`` cannot separate a token issued
    just before a revocation from one issued just after it. The order also keeps the index of
    revoked tokens compact.
    """
    return urlsafe_b64encode(
        now_microseconds.to_bytes(_INSTANT_BYTES, "big") + os.urandom(_RANDOM_BYTES)
    ).decode()


def read_instant(jti: str, iat: int) -> int:
    """Return the microsecond at which the token with this ``jti`` was issued.

    If the id does not agree with ``iat`` (seconds), the start of that second is returned, so that a
    cut-off revokes one token too many rather than one too few.
    """
    try:
        instant = int.from_bytes(urlsafe_b64decode(jti)[:_INSTANT_BYTES], "big")
    except ValueError:
        instant = 0
    return instant if instant // 1_000_000 == iat else iat * 1_000_000
