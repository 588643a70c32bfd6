"""Security event tokens (RFC 8417): verified, taken once, and followed by dropping caches."""

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from authz_verifier.key_cache import KeyCache, Snapshot
from authz_verifier.metrics import EVENTS, Counters
from authz_verifier.responses import Response
from authz_verifier.signed_documents import open_signed
from authz_verifier.tokens import SKEW_SECONDS, UnknownKeyError

logger = logging.getLogger(__name__)

EVENT_TOKEN_TYPE = "secevent+jwt"  # noqa: S105 - a media type, not a secret
MAXIMUM_EVENT_CHARACTERS = 65_536
#: How many ids of events are remembered; an older event that comes again drops the caches again.
MAXIMUM_REMEMBERED = 10_000
_MAXIMUM_ID_CHARACTERS = 256
_OAUTH = "https://schemas.openid.net/secevent/oauth/event-type/"
_RISC = "https://schemas.openid.net/secevent/risc/event-type/"
_TOKENS_REVOKED = f"{_OAUTH}tokens-revoked"
_CREDENTIAL_CHANGE = "https://schemas.openid.net/secevent/caep/event-type/credential-change"
#: What happens to tokens and clients, and leaves the keys of the issuer as they are.
_WITHOUT_KEYS = frozenset(
    {
        f"{_OAUTH}token-revoked",
        f"{_RISC}account-disabled",
        f"{_RISC}account-enabled",
        f"{_RISC}account-purged",
        "urn:authz-server:secevent:stopped",
        "urn:authz-server:secevent:resumed",
    }
)


class EventError(Exception):
    """A token that is not an event for this API.

    Args:
        code: the error code of RFC 8935, 2.4.
        description: a sentence for the transmitter.
    """

    def __init__(self, code: str, description: str) -> None:
        super().__init__(f"{code}: {description}")
        self.code = code
        self.description = description


class EventUnavailableError(Exception):
    """The event cannot be verified at present; it has to be sent again."""


class EventReceiver:
    """Receives events. Safe for threads.

    The order of events and their repetition do not matter: every event drops responses and lists.
    Only one that may concern the keys of the issuer has them fetched again.

    Args:
        issuer: the only accepted `iss`.
        audience: a value that `aud` must contain.
        algorithms: the accepted algorithms, within those of the metadata.
        keys: the issuer's keys.
        want_keys: called before the keys are used; in mode `introspection` they are not at hand.
        drop: drops the responses and the lists.
        renew_keys: fetches the keys again.
        clock: returns seconds since 1970.
        counters: count the events.

    Attributes:
        received: the number of events that dropped the caches.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        issuer: str,
        audience: str,
        algorithms: frozenset[str],
        keys: KeyCache,
        want_keys: Callable[[], None],
        drop: Callable[[], None],
        renew_keys: Callable[[], None],
        clock: Callable[[], float],
        counters: Counters,
    ) -> None:
        self._counters = counters
        self._issuer = issuer
        self._audience = audience
        self._algorithms = algorithms
        self._keys = keys
        self._want_keys = want_keys
        self._drop = drop
        self._renew_keys = renew_keys
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self.received = 0

    def receive(self, body: bytes, content_type: str) -> Response:
        """Return the response to a pushed event (RFC 8935, 2.2 to 2.4).

        Args:
            body: the body of the POST.
            content_type: its type.
        """
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type != f"application/{EVENT_TOKEN_TYPE}":
            return _refuse(EventError("invalid_request", f"Send application/{EVENT_TOKEN_TYPE}."))
        try:
            self.take(body.decode("ascii"))
        except UnicodeDecodeError:
            return _refuse(EventError("invalid_request", "The body is not a token."))
        except EventError as error:
            logger.warning("A pushed security event is refused: %s", error)
            return _refuse(error)
        except EventUnavailableError:
            logger.warning("A pushed security event cannot be verified: there is no key.")
            return Response(503, (("Retry-After", "5"), ("Cache-Control", "no-store")), b"")
        return Response(202, (("Cache-Control", "no-store"),), b"")

    def take(self, token: str) -> bool:
        """Drop the caches for an event; return False if it was taken before.

        Args:
            token: the security event token.

        Raises:
            EventError: it is not an event of the issuer for this API.
            EventUnavailableError: the keys cannot be fetched, or its key is unknown and a newer
                key set cannot be fetched at present.
        """
        try:
            is_new = self._take(token)
        except EventError:
            self._counters.add(EVENTS, "refused")
            raise
        except EventUnavailableError:
            self._counters.add(EVENTS, "unavailable")
            raise
        self._counters.add(EVENTS, "taken" if is_new else "repeated")
        return is_new

    def forget_threads(self) -> None:
        """Replace the lock after a fork: a thread of the parent may have held it."""
        self._lock = threading.Lock()

    def _take(self, token: str) -> bool:
        self._want_keys()
        claims = self._open(token.strip())
        jti = self._check(claims)
        with self._lock:
            if jti in self._seen:
                return False
        # Before it is remembered: an event that is remembered has had its effect.
        self._drop()
        if any(_may_concern_keys(*event) for event in claims["events"].items()):
            self._renew_keys()
        with self._lock:
            self._seen[jti] = None
            self.received += 1
            if len(self._seen) > MAXIMUM_REMEMBERED:
                self._seen.popitem(last=False)
        return True

    def _open(self, token: str) -> Mapping[str, Any]:
        snapshot = self._snapshot(None)
        try:
            try:
                return self._open_by(snapshot, token)
            except UnknownKeyError:
                newer = self._snapshot(snapshot)
                if newer is snapshot:
                    # A refused event is not sent again, and its key may be a new one.
                    raise EventUnavailableError from None
                return self._open_by(newer, token)
        except UnknownKeyError:
            raise EventError("invalid_key", "The key is not one of the issuer's.") from None
        except ValueError as error:
            code = "invalid_key" if str(error) == "signature" else "invalid_request"
            raise EventError(code, f"The token is not valid: {error}.") from None

    def _open_by(self, snapshot: Snapshot, token: str) -> Mapping[str, Any]:
        algorithms = self._algorithms & snapshot.metadata.algorithms
        return open_signed(
            token, EVENT_TOKEN_TYPE, snapshot.keys, algorithms, MAXIMUM_EVENT_CHARACTERS
        )

    def _snapshot(self, newer_than: Snapshot | None) -> Snapshot:
        """Return the issuer's keys; wait for them if there are none, or one is missing."""
        snapshot = self._keys.require(newer_than)
        if snapshot is None:
            raise EventUnavailableError
        return snapshot

    def _check(self, claims: Mapping[str, Any]) -> str:
        """Return the `jti`; raise EventError if a claim is wrong (RFC 8417, 2.2)."""
        if claims.get("iss") != self._issuer:
            raise EventError("invalid_issuer", "The issuer is another one.")
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if self._audience not in named:
            raise EventError("invalid_audience", "The event is for another recipient.")
        issued_at, events, jti = claims.get("iat"), claims.get("events"), claims.get("jti")
        if isinstance(issued_at, bool) or not isinstance(issued_at, int | float):
            raise EventError("invalid_request", "iat is missing.")
        if issued_at > self._clock() + SKEW_SECONDS:
            raise EventError("invalid_request", "iat lies in the future.")
        if not isinstance(jti, str) or not 0 < len(jti) <= _MAXIMUM_ID_CHARACTERS:
            raise EventError("invalid_request", "jti is missing.")
        if not isinstance(events, dict) or not events:
            raise EventError("invalid_request", "events is missing.")
        expires_at = claims.get("exp")
        if expires_at is not None and (
            isinstance(expires_at, bool)
            or not isinstance(expires_at, int | float)
            or self._clock() >= expires_at + SKEW_SECONDS
        ):
            raise EventError("invalid_request", "exp has passed.")
        return jti


def _may_concern_keys(kind: str, facts: object) -> bool:
    """Return whether keys may have changed by an event; True for one of an unknown kind."""
    if kind in _WITHOUT_KEYS:
        return False
    named = facts if isinstance(facts, dict) else {}
    if kind == _TOKENS_REVOKED:
        return named.get("kind") not in {"client", "scope", "audience"}
    return not (kind == _CREDENTIAL_CHANGE and named.get("credential_type") == "client_secret")


def _refuse(error: EventError) -> Response:
    """Return the response of a refused event (RFC 8935, 2.3)."""
    headers = (
        ("Content-Type", "application/json"),
        ("Content-Language", "en"),
        ("Cache-Control", "no-store"),
    )
    body = json.dumps({"err": error.code, "description": error.description}).encode()
    return Response(400, headers, body)
