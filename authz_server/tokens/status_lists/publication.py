"""Status lists as signed JWTs (draft-ietf-oauth-status-list, 5.1)."""

import gzip
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.clients.cache import ClientCache
from authz_server.database.change_feed import ChangeFeed, Revision
from authz_server.database.orm import Database
from authz_server.errors import OAuthError
from authz_server.settings import StatusListSettings
from authz_server.tokens.standing import TokenStanding
from authz_server.tokens.status_lists.contents import encode_list, fill_statuses, find_revoked
from authz_server.tokens.status_lists.entries import STATUS_BITS
from authz_server.tokens.status_lists.models import StatusList
from keys.errors import BackendUnavailable, KeysError
from keys.ring import KeyRings

STATUS_LIST_TYPE = "statuslist+jwt"
#: How many lists a process keeps in memory; each takes less than 1.5 MiB.
MAXIMUM_LISTS = 128
#: How many calls ask the database at a time: their callers are anonymous, and others need it.
_AT_ONCE = 2
#: Statuses without any order leave a list of 470,000 characters.
_MAXIMUM_CHARACTERS = 1_000_000
_encode = msgspec.json.Encoder().encode


class PublishedList:
    """A signed list; safe for threads.

    Args:
        token: the JWT.
        expires_at: its ``exp``, in seconds since 1970.

    Attributes:
        etag: its entity tag.
    """

    def __init__(self, token: bytes, expires_at: int) -> None:
        self.token = token
        self.expires_at = expires_at
        self.etag = f'"{hashlib.sha256(token).hexdigest()[:32]}"'
        self._lock = threading.Lock()
        self._packed = b""

    def pack(self) -> bytes:
        """Return the JWT in gzip; the first call compresses it, and others wait for it."""
        with self._lock:
            self._packed = self._packed or gzip.compress(self.token, 6, mtime=0)
            return self._packed


class _Contents(NamedTuple):
    """The state of a list in the database, by one reading."""

    server_id: str
    version: int
    revision: int
    filled_at: float
    statuses: bytes
    #: The indexes of further invalid tokens; None: nothing has changed in the list.
    revoked: list[int] | None


class _Known(NamedTuple):
    """A list in memory, and what it was made from."""

    version: int
    revision: int
    filled_at: float
    statuses: bytes
    encoded: str
    keys: str
    published: PublishedList


class StatusLists:
    """Makes the lists of all resource servers; safe for threads.

    Args:
        issuer: the identifier of this server.
        database: stores the lists.
        feed: brings the caches up to date.
        standing: judges the tokens.
        directory: finds the ring of a resource server.
        key_rings: sign.
        default_ring: the ring for resource servers without a ring of their own.
        settings: times.
        clock: returns the present time.
        wait_seconds: how long a call waits while others ask the database.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        issuer: str,
        database: Database,
        feed: ChangeFeed,
        standing: TokenStanding,
        directory: ClientCache,
        key_rings: KeyRings,
        default_ring: str,
        settings: StatusListSettings,
        clock: Callable[[], datetime],
        wait_seconds: float,
    ) -> None:
        self._issuer = issuer
        self._database = database
        self._feed = feed
        self._standing = standing
        self._directory = directory
        self._key_rings = key_rings
        self._default_ring = default_ring
        self._settings = settings
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        # One for the lists in memory, and one for each list while it is made (a few share it).
        self._lock = threading.Lock()
        self._making = tuple(threading.Lock() for _ in range(MAXIMUM_LISTS))
        self._lists: OrderedDict[int, _Known] = OrderedDict()

    @property
    def settings(self) -> StatusListSettings:
        """The times of lists."""
        return self._settings

    def uri(self, list_id: int) -> str:
        """Return the address of a list."""
        return uri_of(self._issuer, list_id)

    def find_live(self) -> list[str]:
        """Return the addresses of all lists that have not expired.

        Raises:
            OAuthError: too many calls wait.
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        query = select(StatusList.id).where(StatusList.expires_at > self._clock())
        with self._turn(self._places), self._database.reading() as session:
            return [self.uri(each) for each in session.scalars(query.order_by(StatusList.id))]

    def find(self, list_id: int) -> PublishedList | None:
        """Return a list with everything that was committed before this call; None: no such list.

        Raises:
            OAuthError: no key can sign, too many calls wait, or the caches are old and
                the database does not answer.
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        with self._turn(self._making[list_id % len(self._making)]):
            with self._lock:
                known = self._lists.get(list_id)
            # What waits for this list, or computes it, keeps no other list from the database.
            with self._turn(self._places), self._database.reading() as session:
                contents = self._read(session, list_id, known)
            with self._lock:
                if contents is None:
                    self._lists.pop(list_id, None)
                    return None
            made = self._make(list_id, contents, known)
            with self._lock:
                self._lists[list_id] = made
                self._lists.move_to_end(list_id)
                if len(self._lists) > MAXIMUM_LISTS:
                    self._lists.popitem(last=False)
        return made.published

    @contextmanager
    def _turn(self, room: "threading.Lock | threading.BoundedSemaphore") -> Iterator[None]:
        """Wait for ``room``, but not for long, so that threads remain for other requests.

        Raises:
            OAuthError: ``temporarily_unavailable``.
        """
        if not room.acquire(timeout=self._wait_seconds):
            raise OAuthError("temporarily_unavailable", "too many requests for status lists wait")
        try:
            yield
        finally:
            room.release()

    def _read(self, session: Session, list_id: int, known: _Known | None) -> _Contents | None:
        revision = select(Revision.value).where(Revision.id == 1).scalar_subquery()
        query = select(
            StatusList.version, StatusList.resource_server_id, revision.label("revision")
        ).where(StatusList.id == list_id, StatusList.expires_at > self._clock())
        row = session.execute(query).first()
        if row is None:
            return None
        self._feed.require_seen(row.revision)
        now = self._clock().timestamp()
        seen, server_id = self._feed.seen, row.resource_server_id
        filled_at = known.filled_at if known is not None else 0.0
        # Some statuses follow from the time, such as that of a client that expires.
        is_filled = known is not None and known.revision == seen
        is_filled = is_filled and 0 <= now - filled_at < self._settings.ttl_seconds
        if known is not None and is_filled:
            statuses = known.statuses
        else:
            statuses = bytes(fill_statuses(self._standing, session, list_id, server_id))
            filled_at = now
        is_current = known is not None and (known.statuses, known.version) == (
            statuses,
            row.version,
        )
        revoked = None if is_current else find_revoked(session, list_id)
        return _Contents(server_id, row.version, seen, filled_at, statuses, revoked)

    def _make(self, list_id: int, contents: _Contents, known: _Known | None) -> _Known:
        server_id, version, revision, filled_at, statuses, revoked = contents
        now = self._clock().timestamp()
        keys = self._key_rings.jwks_etag()
        encoded = (
            known.encoded
            if known is not None and revoked is None
            else encode_list(statuses, revoked or ())
        )
        half = self._settings.lifetime_seconds / 2
        if (
            known is not None
            and (known.encoded, known.keys) == (encoded, keys)
            and half < known.published.expires_at - now <= 2 * half
        ):
            published = known.published
        else:
            published = self._publish(list_id, server_id, encoded, int(now))
        return _Known(version, revision, filled_at, statuses, encoded, keys, published)

    def _publish(self, list_id: int, server_id: str, encoded: str, now: int) -> PublishedList:
        settings = self._settings
        expires_at = now + settings.lifetime_seconds
        claims = {
            "iss": self._issuer,
            "sub": self.uri(list_id),
            "iat": now,
            "exp": expires_at,
            "ttl": settings.ttl_seconds,
            "status_list": {
                "bits": STATUS_BITS,
                "lst": encoded,
                "aggregation_uri": f"{self._issuer}/status-lists",
            },
        }
        owner = self._directory.find(server_id)
        own = owner.resource_server if owner is not None else None
        ring = own.signing_ring if own is not None else None
        try:
            signed = self._key_rings.sign(
                ring or self._default_ring,
                _encode(claims),
                typ=STATUS_LIST_TYPE,
                lifetime_seconds=settings.lifetime_seconds,
                maximum_characters=_MAXIMUM_CHARACTERS,
            )
        except BackendUnavailable as error:
            raise OAuthError(
                "temporarily_unavailable", str(error), retry_after_seconds=error.retry_after
            ) from error
        except KeysError as error:
            raise OAuthError("server_error", str(error)) from error
        return PublishedList(signed.token.encode(), expires_at)


def uri_of(issuer: str, list_id: int) -> str:
    """Return the address of a list."""
    return f"{issuer}/status-lists/{list_id}"
