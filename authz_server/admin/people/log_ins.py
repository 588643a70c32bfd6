"""Log-ins that have begun: signed by the server, kept by the browser, and ended once.

Nothing is stored before a log-in ends, so that a flood of log-ins that only begin takes no room,
and needs no limit by address: all browsers behind a proxy may have one
(``docs/decisions/0034-sessions-of-operators.md``).
"""

import hmac
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from authz_server.admin.people import cookies
from authz_server.admin.people.refusals import LogInRefusedError
from authz_server.assembly.server import ServerServices
from authz_server.database.operator_sessions import OperatorLogIn
from authz_server.database.orm import insert_into
from keys.errors import TokenRefusedError
from keys.jose.compact import decode_segment

#: A log-in that has begun ends within this time.
LOG_IN_LIFETIME = timedelta(minutes=10)
_PURPOSE = b"authz-server log-in"
_NONCE_BYTES = 16
_MAC_BYTES = 32


class _Begun(msgspec.Struct, array_like=True, frozen=True):
    """The signed part of a token."""

    expires_at: float
    nonce: bytes
    content: dict[str, Any]


class LogIns:
    """Makes and reads the tokens of log-ins, which every worker and node accepts.

    A token is public: it is the challenge of a passkey, or the ``state`` of a provider.

    Args:
        services: the parts of the server.
    """

    def __init__(self, services: ServerServices) -> None:
        self._services = services
        pepper = services.settings.clients.secret_pepper.reveal()
        self._key = hmac.digest(pepper, _PURPOSE, "sha256")

    def begin(self, digest: bytes, content: Mapping[str, Any]) -> bytes:
        """Return the token of a log-in that begins.

        Args:
            digest: of the id in the browser's cookie and of the kind of log-in.
            content: what the end of the log-in needs.
        """
        expires_at = self._services.corrected_clock() + LOG_IN_LIFETIME
        begun = _Begun(expires_at.timestamp(), secrets.token_bytes(_NONCE_BYTES), dict(content))
        sent = msgspec.json.encode(begun)
        return self._sign(digest, sent) + sent

    def read(self, digest: bytes, token: bytes) -> dict[str, Any]:
        """Return what a log-in began with.

        Raises:
            LogInRefusedError: ``log_in_over``: it began in another browser, or took too long.
        """
        mac, sent = token[:_MAC_BYTES], token[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._sign(digest, sent)):
            raise LogInRefusedError("log_in_over", "not begun in this browser")
        begun = msgspec.json.decode(sent, type=_Begun)
        if begun.expires_at <= self._services.corrected_clock().timestamp():
            raise LogInRefusedError("log_in_over", "too late")
        return begun.content

    def end(self, transaction: Session, token: bytes) -> None:
        """End a log-in that was read: by a passkey, in the transaction of its success.

        Raises:
            LogInRefusedError: ``log_in_over``: it has ended before.
        """
        begun = msgspec.json.decode(token[_MAC_BYTES:], type=_Begun)
        ended = insert_into(transaction, OperatorLogIn).values(
            digest=sha256(token).digest(),
            content={},
            expires_at=datetime.fromtimestamp(begun.expires_at, UTC),
        )
        first = ended.on_conflict_do_nothing().returning(OperatorLogIn.digest)
        if transaction.execute(first).first() is None:
            raise LogInRefusedError("log_in_over", "ended before")

    def secret(self, token: bytes, name: str) -> str:
        """Return a secret of a log-in that only the server can derive."""
        return cookies.encode(hmac.digest(self._key, name.encode() + b"\0" + token, "sha256"))

    def _sign(self, digest: bytes, sent: bytes) -> bytes:
        return hmac.digest(self._key, digest + sent, "sha256")


def decode_token(text: str) -> bytes:
    """Return the token of base64url without padding; empty for any other text."""
    try:
        return decode_segment(text.encode())
    except TokenRefusedError:
        return b""
