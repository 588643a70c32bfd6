"""Documents that clients and issuers publish, such as JWK sets: fetched, cached and kept.

A process fetches a document once for all requests that wait for it. Failures are remembered, and
the last good document is used for a limited time. ``authz_server.clients.outbound`` decides which
URLs and addresses are permitted.
"""

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

from authz_server.audit.notifier import Notify
from authz_server.clients.exchanges import (
    MAXIMUM_FETCHES_OF_ORIGIN,
    Access,
    BusyError,
    Exchanges,
    Resolve,
)
from authz_server.clients.outbound import FetchError, Reply, UrlRefusedError, resolve_host
from authz_server.errors import OAuthError
from authz_server.metrics.events import DocumentFetched
from authz_server.settings.trust import OutboundSettings
from authz_server.waiting import Batch, BatchedStep, Lane, Step

__all__ = [
    "ANYBODY",
    "MAXIMUM_FETCHES_OF_ORIGIN",
    "Access",
    "FetchError",
    "Fetcher",
    "UrlRefusedError",
]

logger = logging.getLogger(__name__)

#: The bounds of a process's cache; the documents used longest ago are dropped.
MAXIMUM_DOCUMENTS = 10_000
MAXIMUM_CACHED_BYTES = 64 * 1024 * 1024
#: How many URLs that have not given a document yet are remembered; they displace no document.
MAXIMUM_EMPTY = 1_000
#: A URL that fails is left alone for a time that doubles with each failure, up to a limit.
FIRST_BACK_OFF_SECONDS = 1.0
#: After an error response: the document may be published at any time, and to ask again is cheap.
LONGEST_BACK_OFF_SECONDS = 5.0
#: After none: each attempt keeps a thread for up to ``outbound.timeout_seconds``.
LONGEST_SILENT_BACK_OFF_SECONDS = 60.0
#: The longest time for which an origin can ask to be left alone, by ``Retry-After``.
LONGEST_RETRY_AFTER_SECONDS = 300.0
_LONGEST_EXPONENT = 16
_MAXIMUM_AGE = re.compile(r"max-age\s*=\s*\"?([0-9]{1,10})", re.IGNORECASE)
_UNCACHED = re.compile(r"\bno-(store|cache)\b", re.IGNORECASE)

#: The access of URLs that clients supply.
ANYBODY = Access()


class Fetcher:
    """Fetches documents for a process; safe for threads.

    Args:
        settings: the limits and the permitted origins.
        notify: receives the outcome of each fetch.
        resolve: returns the IP addresses of a host within some seconds.
        now: returns monotonic seconds.
    """

    def __init__(
        self,
        settings: OutboundSettings,
        notify: Notify = lambda _event: None,
        *,
        resolve: Resolve = resolve_host,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._settings = settings
        self._notify = notify
        self._now = now
        self._exchanges = Exchanges(settings, resolve)
        self._documents: OrderedDict[tuple[str, Access], _Document] = OrderedDict()
        self._empty: OrderedDict[tuple[str, Access], _Document] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    async def fetch(self, url: str, *, newer: bool = False, access: Access = ANYBODY) -> bytes:
        """Return the document at a URL: the same object while it is cached.

        Args:
            url: https, without user and fragment.
            newer: whether a cached document does not do, for example because a key is not in it.
                One fetched less than ``outbound.minimum_cache_seconds`` ago is returned all the
                same.
            access: what the fetch may use.

        Raises:
            FetchError: the URL may not be fetched, or gave no document and there is no last one.
            OAuthError: ``temporarily_unavailable``: too many requests wait, or too many documents
                are being fetched and there is no last one.
        """
        document = self._find(url, access)
        body = document.find_body(newer=newer)
        if body is not None:
            return body
        result = await BatchedStep(document, newer)
        if isinstance(result, BusyError):
            raise OAuthError("temporarily_unavailable", str(result))
        if isinstance(result, FetchError):
            raise result
        return result

    def is_due(self, url: str, *, access: Access = ANYBODY) -> bool:
        """Return whether a request for a document would fetch it now."""
        key = (url, access)
        document = self._documents.get(key) or self._empty.get(key)
        return document is None or not document.is_settled(self._now(), newer=False)

    def post(self, url: str, body: bytes, headers: Sequence[str], *, access: Access) -> Reply:
        """Send a POST on this thread; return the answer of any status.

        Args:
            url: https, without user and fragment.
            body: the body.
            headers: header lines, with the type of the body.
            access: what the request may use.

        Raises:
            FetchError: the URL may not be reached, or there is no answer within the limits.
        """
        parts = self._exchanges.check(url, access)
        return self._exchanges.send("POST", parts, access, headers, body)

    def _find(self, url: str, access: Access) -> "_Document":
        key = (url, access)
        document = self._documents.get(key) or self._empty.get(key)
        if document is None:
            self._exchanges.check(url, access)
            with self._lock:
                document = self._documents.get(key) or self._empty.get(key)
                if document is None:
                    document = self._empty[key] = _Document(self, url, access)
                    if len(self._empty) > MAXIMUM_EMPTY:
                        self._empty.popitem(last=False)
        return document

    def load(self, document: "_Document", began: float, *, newer: bool) -> None:
        """Fetch a document on this thread, unless another thread has just done so."""
        settings = self._settings
        with document.lock:
            now = self._now()
            if document.is_settled(now, newer=newer):
                return
            try:
                reply = self._exchanges.get(document.url, document.access, began)
            except BusyError as error:
                document.note_busy(error)
                return
            except FetchError as error:
                outcome = "refused" if isinstance(error, UrlRefusedError) else "failed"
                document.note_failure(self._now(), error)
            else:
                outcome = "ok"
                document.note_reply(self._now(), reply, settings)
        self._notify(DocumentFetched(outcome))
        self._count(document)

    def _count(self, document: "_Document") -> None:
        """Count the bytes of a document that was fetched, and move it to the end of the cache."""
        key, body = (document.url, document.access), document.body
        with self._lock:
            if body is None or self._documents.get(key, document) is not document:
                return
            if key not in self._documents:
                document.counted_bytes = 0
            self._empty.pop(key, None)
            self._documents[key] = document
            self._documents.move_to_end(key)
            self._bytes += len(body) - document.counted_bytes
            document.counted_bytes = len(body)
            self._shrink(document)

    def _shrink(self, used: "_Document") -> None:
        """Drop the documents fetched longest ago, except for one in use."""
        while len(self._documents) > MAXIMUM_DOCUMENTS or self._bytes > MAXIMUM_CACHED_BYTES:
            key, oldest = next(iter(self._documents.items()))
            if oldest is used:
                break
            del self._documents[key]
            self._bytes -= oldest.counted_bytes

    @property
    def settings(self) -> OutboundSettings:
        """The limits."""
        return self._settings

    def now(self) -> float:
        """Return monotonic seconds."""
        return self._now()


class _Document(Batch[bool, bytes | FetchError]):
    """A document at a URL, and what its fetches gave."""

    def __init__(self, fetcher: Fetcher, url: str, access: Access) -> None:
        self.url = url
        self.access = access
        self.lock = threading.Lock()
        self.body: bytes | None = None
        self.counted_bytes = 0
        self._fetcher = fetcher
        self._fetched_at = 0.0
        self._fresh_until = 0.0
        self._kept_until = 0.0
        self._failures = 0
        self._retry_at = 0.0
        self._error = FetchError("the document was not fetched")

    def find_body(self, *, newer: bool) -> bytes | None:
        """Return the document without waiting; None if it has to be fetched.

        Raises:
            FetchError: a fetch has just failed.
        """
        now = self._fetcher.now()
        return self._result(now) if self.is_settled(now, newer=newer) else None

    def is_settled(self, now: float, *, newer: bool) -> bool:
        """Return whether nothing is to be fetched at present."""
        if now < self._retry_at:
            return True
        if self.body is None or now >= self._fresh_until:
            return False
        shortest = self._fetcher.settings.minimum_cache_seconds
        return not newer or now < self._fetched_at + shortest

    async def perform(self, values: Sequence[bool]) -> Sequence[bytes | FetchError]:
        """Fetch the document once for all that wait for it."""
        began = monotonic()
        newer = any(values)
        load = partial(self._fetcher.load, self, began, newer=newer)
        await Step(Lane.OUTBOUND, load)
        try:
            result: bytes | FetchError = self._result(self._fetcher.now())
        except FetchError as error:
            result = error
        return [result] * len(values)

    def note_reply(self, now: float, reply: Reply, settings: OutboundSettings) -> None:
        """Keep a document for as long as its headers permit, within the settings' bounds."""
        if self._failures:
            logger.info("%s can be fetched again", self.url)
        if self.body != reply.body:
            self.body = reply.body
        lifetime = read_lifetime(reply.cache_control)
        if lifetime is None:
            lifetime = settings.default_cache_seconds
        lowest, highest = settings.minimum_cache_seconds, settings.maximum_cache_seconds
        self._fetched_at = now
        self._fresh_until = now + min(max(lifetime, lowest), highest)
        self._kept_until = self._fresh_until + settings.keep_seconds
        self._failures, self._retry_at = 0, 0.0

    def note_busy(self, error: FetchError) -> None:
        """Report that this process could not fetch the document; the next request may."""
        self._error = error

    def note_failure(self, now: float, error: FetchError) -> None:
        """Leave the URL alone for a while."""
        if not self._failures:
            logger.warning("%s cannot be fetched: %s", self.url, error)
        longest = LONGEST_BACK_OFF_SECONDS if error.is_response else LONGEST_SILENT_BACK_OFF_SECONDS
        pause = min(FIRST_BACK_OFF_SECONDS * 2**self._failures, longest)
        asked = min(error.retry_after_seconds, LONGEST_RETRY_AFTER_SECONDS)
        self._failures = min(self._failures + 1, _LONGEST_EXPONENT)
        self._retry_at = now + max(pause, asked)
        self._error = error

    def _result(self, now: float) -> bytes:
        if self.body is not None and now < self._kept_until:
            return self.body
        # A new object: each request adds its own traceback.
        raise type(self._error)(*self._error.args)


def read_lifetime(cache_control: str) -> int | None:
    """Return the seconds for which ``Cache-Control`` permits caching; None if it sets no limit."""
    if _UNCACHED.search(cache_control):
        return 0
    found = _MAXIMUM_AGE.search(cache_control)
    return int(found[1]) if found else None
