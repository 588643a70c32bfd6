"""Clients that publish their metadata at the address that is their id.

By draft-ietf-oauth-client-id-metadata-document, for headless clients with ``private_key_jwt``. The
settings name the permitted origins and their scopes; nothing about such a client is stored
(``docs/decisions/0027-client-documents-are-not-stored.md``).
"""

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from authz_server.clients.authentication.throttle import FailureThrottle, network_of
from authz_server.clients.cache import ClientEntry
from authz_server.clients.fetching import Fetcher, FetchError
from authz_server.clients.identifiers import normalised
from authz_server.clients.outbound import UrlRefusedError, split_url
from authz_server.clients.properties import (
    NO_PROPERTIES,
    ClientProperties,
    check_properties,
    merge_properties,
    read_properties,
)
from authz_server.clients.registered_keys import require_fitting_algorithm
from authz_server.clients.validation import MAXIMUM_ID_CHARACTERS
from authz_server.errors import InvalidChangeError, OAuthError
from authz_server.settings import ClientDocumentSettings, OutboundSettings
from keys.errors import TokenRefusedError
from keys.jose.compact import parse_json_object

logger = logging.getLogger(__name__)

METHOD = "private_key_jwt"
GRANT_TYPE = "client_credentials"
#: The draft, section 4.3, recommends 5 kB; a key set needs more.
MAXIMUM_DOCUMENT_BYTES = 16_384
#: How many documents that it does not hold a process fetches for one network in a minute; further
#: ones it fetches one at a time.
NEW_DOCUMENTS = 30
NEW_DOCUMENTS_SECONDS = 60
_RETRY_AFTER_SECONDS = 1
_PREFIXES = ("https://", "http://")
_DOT_SEGMENT = re.compile(r"(?:^|/)\.{1,2}(?:/|$)")
#: Members of a document that are properties of the client.
_PROPERTIES = (
    "jwks",
    "jwks_uri",
    "token_endpoint_auth_signing_alg",
    "dpop_bound_access_tokens",
    "tls_client_certificate_bound_access_tokens",
)


class _Held(NamedTuple):
    """A document as fetched, and the client that it describes.

    Attributes:
        entry: the client; None: the document describes no client.
        problem: the reason.
        generation: the generation of the scopes in the entry.
    """

    body: bytes
    entry: ClientEntry | None
    problem: str
    generation: int


class ClientDocuments:
    """Finds clients by their documents, in bounded memory; safe for threads.

    Args:
        settings: the permitted origins.
        fetcher: fetches and caches the documents, from the permitted origins alone.
        expand_scopes: returns the canonical names of scopes in any spelling; unknown ones are
            left out, and a trailing ``/*`` stands for all scopes below.
        plain_http: whether ids may begin with http://, for a test.
    """

    def __init__(
        self,
        settings: ClientDocumentSettings,
        fetcher: Fetcher,
        expand_scopes: Callable[[Iterable[str]], tuple[str, ...]],
        *,
        plain_http: bool = False,
    ) -> None:
        self._origins: Mapping[str, tuple[str, ...]] = settings.allowed_origins
        self._refused = frozenset(map(normalised, settings.refused_client_ids))
        self._maximum = settings.maximum_documents
        self._fetcher = fetcher
        self._expand_scopes = expand_scopes
        self._plain_http = plain_http
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._lock = threading.Lock()
        self._limit = FailureThrottle(NEW_DOCUMENTS, NEW_DOCUMENTS_SECONDS)
        # The networks beyond the limit for which a document is being fetched.
        self._slowed: set[str] = set()
        self._generation = 0
        self._changed: Callable[[], object] = lambda: None

    def on_change(self, call: Callable[[], object]) -> None:
        """Call ``call`` whenever a client may have changed."""
        self._changed = call

    def find(self, client_id: str) -> ClientEntry | None:
        """Return the client with this id, without waiting; None if its origin is not permitted.

        Without its document, the client has no keys, so that it cannot authenticate. Its tokens
        are judged by the scopes of its origin.
        """
        if not client_id.startswith(_PREFIXES):
            return None
        held = self._held.get(client_id)
        if held is not None and held.entry is not None and held.generation == self._generation:
            return held.entry
        origin = self._find_origin(client_id)
        return None if origin is None else self._make_entry(client_id, self._origins[origin])

    async def resolve(self, client_id: str, address: str, now: float) -> None:
        """Fetch the document of a client that is about to authenticate, unless it is cached.

        Args:
            client_id: the id that a request claims.
            address: the sender's IP address.
            now: seconds since 1970 UTC.

        Raises:
            OAuthError: ``client_authentication_failed`` if there is no usable document,
                ``throttled`` if the sender causes too many fetches, or ``temporarily_unavailable``.
        """
        if not client_id.startswith(_PREFIXES) or self._find_origin(client_id) is None:
            return
        # A URL that has just failed is not fetched, so that the request causes nothing.
        is_new = client_id not in self._held and self._fetcher.is_due(client_id)
        if is_new and self._limit.count_failure("", address, now):
            # The address may be that of a proxy, from which all clients send.
            with self._slow_place(client_id, network_of(address)):
                body = await self._fetch(client_id)
        else:
            body = await self._fetch(client_id)
        held = self._hold(client_id, body)
        if held.entry is None:
            # Section 4.4 of the draft: a document that is not valid is not cached.
            try:
                held = self._hold(client_id, await self._fetcher.fetch(client_id, newer=True))
            except FetchError as error:
                raise _unusable(client_id, str(error)) from None
        if held.entry is None:
            raise _unusable(client_id, held.problem)

    async def _fetch(self, client_id: str) -> bytes:
        try:
            return await self._fetcher.fetch(client_id)
        except FetchError as error:
            self._drop(client_id)
            raise _unusable(client_id, str(error)) from None

    @contextmanager
    def _slow_place(self, client_id: str, network: str) -> Iterator[None]:
        """Hold the one place of a network beyond the limit."""
        with self._lock:
            is_taken = network in self._slowed
            self._slowed.add(network)
        if is_taken:
            wait = _RETRY_AFTER_SECONDS
            raise OAuthError("throttled", retry_after_seconds=wait, client_id=client_id)
        try:
            yield
        finally:
            self._slowed.discard(network)

    async def renew(self, client_id: str) -> ClientEntry | None:
        """Return the client of a newer document, because a key is not in the one at hand.

        A document fetched less than ``outbound.minimum_cache_seconds`` ago is used again.

        Args:
            client_id: the id of any client.

        Returns:
            None if the client has no document, or the document describes no client.
        """
        if client_id not in self._held:
            return None
        try:
            body = await self._fetcher.fetch(client_id, newer=True)
        except FetchError:
            return None
        return self._hold(client_id, body).entry

    def forget(self) -> None:
        """Read the documents again at their next use, because the scopes have changed."""
        self._generation += 1

    def _find_origin(self, client_id: str) -> str | None:
        """Return the permitted origin of an id that is a valid address of a document, or None.

        Another spelling of an address would escape what is refused, stopped or revoked by its id.
        """
        if len(client_id) > MAXIMUM_ID_CHARACTERS or client_id in self._refused:
            return None
        try:
            parts = split_url(client_id, plain_http=self._plain_http)
        except UrlRefusedError:
            return None
        path = urlsplit(client_id).path
        # Section 3 of the draft; a query would give one document many ids.
        if "?" in client_id or path in {"", "/"} or _DOT_SEGMENT.search(unquote(path)):
            return None
        if parts.origin not in self._origins or client_id != normalised(client_id):
            return None
        return parts.origin

    def _read(self, client_id: str, body: bytes) -> _Held:
        generation = self._generation
        try:
            document = _parse(client_id, body)
            properties = _read_properties(document)
        except InvalidChangeError as error:
            problem = str(error).partition(":")[0]
            logger.warning("the document of the client %s is refused: %s", client_id, problem)
            return _Held(body, None, problem, generation)
        origin = self._find_origin(client_id)
        permitted = self._origins[origin] if origin is not None else ()
        scopes = document.get("scope")
        entry = self._make_entry(
            client_id, permitted, None if scopes is None else scopes.split(" "), properties
        )
        logger.info("the document of the client %s is read", client_id)
        return _Held(body, entry, "", generation)

    def _make_entry(
        self,
        client_id: str,
        permitted: Iterable[str],
        asked: Iterable[str] | None = None,
        properties: ClientProperties = NO_PROPERTIES,
    ) -> ClientEntry:
        scopes = self._expand_scopes(permitted)
        if asked is not None:
            wanted = set(self._expand_scopes(asked))
            scopes = tuple(name for name in scopes if name in wanted)
        return ClientEntry(
            id=client_id,
            kind="client",
            enabled=True,
            created_at=0.0,
            starts_at=0.0,
            expires_at=float("inf"),
            authentication_method=METHOD,
            grant_types=frozenset({GRANT_TYPE}),
            allowed_scopes=frozenset(scopes),
            default_scopes=scopes,
            allowed_resource_servers=frozenset(),
            permissions=frozenset(),
            token_lifetime_seconds=None,
            g2p_answer="document",
            secrets=(),
            resource_server=None,
            properties=properties,
        )

    def _hold(self, client_id: str, body: bytes) -> _Held:
        """Return what a document describes; it is read once."""
        held = self._held.get(client_id)
        if held is None or held.body is not body or held.generation != self._generation:
            held = self._read(client_id, body)
            self._keep(client_id, held)
        return held

    def _keep(self, client_id: str, held: _Held) -> None:
        with self._lock:
            self._held[client_id] = held
            self._held.move_to_end(client_id)
            while len(self._held) > self._maximum:
                self._held.popitem(last=False)
        self._changed()

    def _drop(self, client_id: str) -> None:
        with self._lock:
            dropped = self._held.pop(client_id, None)
        if dropped is not None:
            self._changed()


def document_limits(
    settings: ClientDocumentSettings, outbound: OutboundSettings
) -> OutboundSettings:
    """Return the settings of the fetcher of documents: the permitted origins, and small bodies."""
    return msgspec.structs.replace(
        outbound,
        allowed_origins=tuple(settings.allowed_origins),
        maximum_bytes=min(outbound.maximum_bytes, MAXIMUM_DOCUMENT_BYTES),
    )


def _parse(client_id: str, body: bytes) -> Mapping[str, Any]:
    """Return a document that describes the client and permits what it is to be used for.

    Raises:
        InvalidChangeError: a member breaks a rule; the message begins with its name.
    """
    try:
        document = parse_json_object(body)
    except TokenRefusedError:
        raise InvalidChangeError("not a JSON object") from None
    document = {name: value for name, value in document.items() if value is not None}
    # Section 4.1 of the draft: compared as texts.
    if document.get("client_id") != client_id:
        raise InvalidChangeError("client_id")
    if document.keys() & {"client_secret", "client_secret_expires_at"}:
        raise InvalidChangeError("client_secret")
    if document.get("token_endpoint_auth_method") != METHOD:
        raise InvalidChangeError("token_endpoint_auth_method")
    grants = document.get("grant_types", [GRANT_TYPE])
    if not isinstance(grants, list) or GRANT_TYPE not in grants:
        raise InvalidChangeError("grant_types")
    if not isinstance(document.get("scope", ""), str):
        raise InvalidChangeError("scope")
    if len(document.keys() & {"jwks", "jwks_uri"}) != 1:
        raise InvalidChangeError("jwks")
    return document


def _read_properties(document: Mapping[str, Any]) -> ClientProperties:
    given = {name: document[name] for name in _PROPERTIES if name in document}
    properties = merge_properties({}, check_properties(given))
    require_fitting_algorithm(METHOD, properties)
    return read_properties(properties)


def _unusable(client_id: str, problem: str) -> OAuthError:
    return OAuthError(
        "client_authentication_failed",
        problem,
        cause="client_document_unusable",
        client_id=client_id,
    )
