"""Report tokens signed by tainted keys; such tokens stay valid until they expire."""

import logging
import threading
import time
from collections.abc import Callable

from authz_server.audit.events import TokenOfTaintedKey
from authz_server.audit.notifier import AuditUnavailable, Notify
from authz_server.tokens.claims import AccessTokenClaims, Origin
from keys.ring import KeyRings

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 60.0


class TaintedKeyWatch:
    """Records the use of tokens of a tainted key, at most once a minute for each key.

    Args:
        key_rings: know the tainted keys.
        notify: records an event.
        monotonic: returns monotonic seconds.
    """

    def __init__(
        self,
        key_rings: KeyRings,
        notify: Notify,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._key_rings = key_rings
        self._notify = notify
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._silent_until: dict[str, float] = {}

    def check(self, kid: str, claims: AccessTokenClaims) -> None:
        """Record a token signed by ``kid`` if that key is tainted; never raises.

        A token that it was exchanged from is recorded likewise.
        """
        self._check(kid, claims)
        for origin in claims.exchanged_from:
            self._check(origin.kid, origin)

    def _check(self, kid: str, token: AccessTokenClaims | Origin) -> None:
        if not self._key_rings.is_tainted(kid) or not self._is_due(kid):
            return
        event = TokenOfTaintedKey(client_id=token.client_id, jti=token.jti, kid=kid)
        try:
            self._notify(event)
        except AuditUnavailable as error:
            logger.warning("a token of the tainted key %s is not recorded: %s", kid, error.detail)

    def _is_due(self, kid: str) -> bool:
        now = self._monotonic()
        with self._lock:
            if now < self._silent_until.get(kid, 0.0):
                return False
            self._silent_until[kid] = now + SILENCE_SECONDS
            return True
