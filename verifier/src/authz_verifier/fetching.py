"""Fetching documents over HTTP: bounded in time and size, without redirects."""

import logging
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx

from authz_verifier.connections import new_client
from authz_verifier.documents import (
    KeySet,
    Metadata,
    metadata_urls,
    parse_key_set,
    parse_metadata,
)
from authz_verifier.tokens import SKEW_SECONDS

logger = logging.getLogger(__name__)

MAXIMUM_DOCUMENT_BYTES = 1_048_576
#: Bounds of the time that a document is fresh, whatever its max-age.
MINIMUM_FRESH_SECONDS = 5
MAXIMUM_FRESH_SECONDS = 3_600
DEFAULT_FRESH_SECONDS = 300
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}
_AGE = re.compile(r"[0-9]{1,9}")
_MAXIMUM_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


class FetchError(Exception):
    """A document cannot be had, or is not what it must be."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An issuer's documents.

    Attributes:
        metadata: its metadata.
        keys: its keys; empty if they were not wanted.
        fresh_seconds: when to fetch them again.
    """

    metadata: Metadata
    keys: KeySet
    fresh_seconds: float


@dataclass(frozen=True, slots=True)
class FetchedList:
    """The answer to a request for a status list.

    Attributes:
        data: the list; empty if it is unchanged.
        etag: its entity tag.
        age_seconds: how long a cache has held it.
        unchanged: whether the last one is still the present one.
    """

    data: bytes
    etag: str
    age_seconds: float
    unchanged: bool


class StatusListFetcher:
    """Fetches status lists.

    Args:
        timeout_seconds: for each list.
        ssl_context: for https; None: the certificate authorities of httpx.
    """

    def __init__(self, timeout_seconds: float, ssl_context: ssl.SSLContext | None = None) -> None:
        self._timeout_seconds = timeout_seconds
        self._ssl_context = ssl_context

    def fetch(self, uri: str, etag: str, pass_caches: bool) -> FetchedList:  # noqa: FBT001 - a value
        """Fetch a list.

        Args:
            uri: its address.
            etag: the entity tag of the last one; empty if there is none.
            pass_caches: whether caches on the way have to ask the server.

        Raises:
            FetchError: it cannot be had.
        """
        headers = _HEADERS | {"Accept": "application/statuslist+jwt"}
        if etag:
            headers["If-None-Match"] = etag
        if pass_caches:
            headers["Cache-Control"] = "no-cache"
        try:
            with (
                new_client(self._timeout_seconds, self._ssl_context) as client,
                client.stream("GET", uri, headers=headers) as response,
            ):
                return self._read(response, etag)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise FetchError(f"{uri}: {type(error).__name__}") from error

    def _read(self, response: httpx.Response, etag: str) -> FetchedList:
        seconds = _age_of(response)
        if etag and response.status_code == httpx.codes.NOT_MODIFIED:
            return FetchedList(b"", etag, seconds, unchanged=True)
        if response.status_code != httpx.codes.OK:
            raise FetchError(f"status {response.status_code}")
        data = read_bounded(response)
        return FetchedList(data, response.headers.get("etag", ""), seconds, unchanged=False)


class DocumentFetcher:
    """Fetches the metadata and keys of an issuer.

    Args:
        issuer: its identifier.
        timeout_seconds: for each document.
        ssl_context: for https; None: the certificate authorities of httpx.
        wants_keys: whether the keys are fetched.
        clock: returns seconds since 1970.

    Attributes:
        clock_offset_seconds: this machine's clock minus the issuer's at the last fetch, within a
            second; None before.
    """

    def __init__(
        self,
        issuer: str,
        timeout_seconds: float,
        ssl_context: ssl.SSLContext | None = None,
        *,
        wants_keys: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self.clock_offset_seconds: float | None = None
        self._issuer = issuer
        self._timeout_seconds = timeout_seconds
        self._ssl_context = ssl_context
        self._wants_keys = wants_keys

    def want_keys(self) -> None:
        """Fetch the keys too from now."""
        self._wants_keys = True

    def fetch(self, known: Metadata | None) -> Fetched:
        """Fetch the documents.

        Args:
            known: the last metadata, used if it cannot be fetched.

        Raises:
            FetchError: they cannot be had.
        """
        with new_client(self._timeout_seconds, self._ssl_context) as client:
            try:
                metadata, fresh = self._metadata(client)
            except FetchError as error:
                if known is None:
                    raise
                logger.warning(
                    "The authorization server's metadata cannot be fetched; the last is used: %s",
                    error,
                )
                metadata, fresh = known, DEFAULT_FRESH_SECONDS
            if not self._wants_keys:
                return Fetched(metadata, KeySet({}), fresh)
            data, fresh = self._get(client, metadata.jwks_uri)
            try:
                return Fetched(metadata, parse_key_set(data), fresh)
            except ValueError as error:
                raise FetchError(f"jwks_uri: {error}") from error

    def _metadata(self, client: httpx.Client) -> tuple[Metadata, float]:
        first, second = metadata_urls(self._issuer)
        try:
            return self._metadata_at(client, first)
        except FetchError as error:
            # Some servers answer any address, such as with a page.
            try:
                return self._metadata_at(client, second)
            except FetchError as other:
                raise FetchError(f"{error}; {other}") from other

    def _metadata_at(self, client: httpx.Client, url: str) -> tuple[Metadata, float]:
        data, fresh = self._get(client, url)
        try:
            return parse_metadata(data, self._issuer), fresh
        except ValueError as error:
            raise FetchError(f"{url}: {error}") from error

    def _get(self, client: httpx.Client, url: str) -> tuple[bytes, float]:
        try:
            with client.stream("GET", url, headers=_HEADERS) as response:
                if response.status_code != httpx.codes.OK:
                    raise FetchError(f"{url}: status {response.status_code}")
                data = read_bounded(response)
                self._compare_clocks(response)
                return data, _fresh_seconds(response)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise FetchError(f"{url}: {type(error).__name__}") from error

    def _compare_clocks(self, response: httpx.Response) -> None:
        """Warn once if the clocks differ by more than is tolerated."""
        offset = _clock_offset(response, self._clock())
        if offset is None:
            return
        last, self.clock_offset_seconds = self.clock_offset_seconds, offset
        if abs(offset) > SKEW_SECONDS and abs(last or 0.0) <= SKEW_SECONDS:
            logger.warning(
                "This machine's clock differs by %d seconds from the authorization server's.",
                offset,
            )


def read_bounded(response: httpx.Response) -> bytes:
    """Return the body of a response.

    Raises:
        FetchError: it is compressed or too large.
        httpx.HTTPError: the connection failed, or the exchange takes too long.
    """
    require_identity(response.headers.get("content-encoding", "identity"))
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        require_bounded(body)
    return bytes(body)


def require_identity(encoding: str) -> None:
    """Raise FetchError for the Content-Encoding of a compressed response: none was requested."""
    # It would be decompressed without a bound.
    if encoding.lower() != "identity":
        raise FetchError("the response is compressed")


def require_bounded(body: bytearray) -> None:
    """Raise FetchError if a body is too large."""
    if len(body) > MAXIMUM_DOCUMENT_BYTES:
        raise FetchError("the response is too large")


def _age_of(response: httpx.Response) -> float:
    """Return how long a cache has held a response (RFC 9111, 5.1)."""
    age = _AGE.fullmatch(response.headers.get("age", ""))
    return float(age[0]) if age else 0.0


def _clock_offset(response: httpx.Response, now: float) -> float | None:
    """Return `now` minus the time that a response states (RFC 9110, 6.6.1), or None."""
    try:
        date = parsedate_to_datetime(response.headers.get("date", ""))
    except (ValueError, OverflowError):
        return None
    # A date without a zone is in UTC (RFC 9110, 5.6.7).
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return now - date.timestamp() - _age_of(response)


def _fresh_seconds(response: httpx.Response) -> float:
    found = _MAXIMUM_AGE.search(response.headers.get("cache-control", ""))
    seconds = (int(found[1]) if found else DEFAULT_FRESH_SECONDS) - _age_of(response)
    return min(max(seconds, MINIMUM_FRESH_SECONDS), MAXIMUM_FRESH_SECONDS)
