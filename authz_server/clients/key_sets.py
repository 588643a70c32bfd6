"""The public keys of clients and issuers, inline or at an address."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from authz_server.clients.fetching import ANYBODY, Access, Fetcher, FetchError
from keys.errors import KeysError
from keys.jose.foreign import ForeignKeys, parse_key_set, parse_published_key_set
from keys.jose.signatures import Verifier

logger = logging.getLogger(__name__)

#: The bound of each cache of a process; the sets read longest ago are dropped.
MAXIMUM_KEY_SETS = 10_000
_NO_KEYS = ForeignKeys([])
_Found = TypeVar("_Found")


class _Published(NamedTuple):
    """The keys of an address.

    Attributes:
        body: the document as fetched.
        keys: its keys, or those of the last document that was a key set; None if there was none.
        kept_until: the monotonic time until which the keys of an earlier document are used.
    """

    body: bytes
    keys: ForeignKeys | None
    kept_until: float


class KeySets:
    """Reads key sets, and keeps them as long as their documents stay the same.

    Args:
        fetcher: fetches and caches the documents.
        parse: reads a fetched document.
    """

    def __init__(
        self, fetcher: Fetcher, parse: Callable[[bytes], ForeignKeys] = parse_published_key_set
    ) -> None:
        self._fetcher = fetcher
        self._parse = parse
        self._inline: OrderedDict[str, tuple[Mapping[str, Any], ForeignKeys]] = OrderedDict()
        self._published: OrderedDict[tuple[str, Access], _Published] = OrderedDict()

    def read_inline(self, owner: str, jwks: Mapping[str, Any] | None) -> ForeignKeys:
        """Return the keys of a registered JWK set; none if there is no set or it is damaged.

        Args:
            owner: the id of the client or issuer.
            jwks: its set; the same object until it changes.
        """
        if jwks is None:
            return _NO_KEYS
        held = self._inline.get(owner)
        if held is not None and held[0] is jwks:
            return held[1]
        try:
            keys = parse_key_set(jwks)
        except KeysError as error:
            logger.warning("the registered keys of %s cannot be read: %s", owner, error)
            keys = _NO_KEYS
        _keep(self._inline, owner, (jwks, keys))
        return keys

    async def find_published(
        self, uri: str, kid: str | None, alg: str, *, access: Access = ANYBODY
    ) -> Verifier | None:
        """Return the verifier of the key that a token's header identifies; None if none fits.

        If no key fits, the document is fetched again, unless that was done a short time ago.

        Args:
            uri: the address of a JWK set.
            kid: the ``kid`` of the token; None if absent.
            alg: the ``alg`` of the token.
            access: what the fetch may use.

        Raises:
            FetchError: there are no keys: the address gives no JWK set, and none was kept.
            OAuthError: ``temporarily_unavailable``: too many requests wait.
        """
        return await self._search(uri, access, lambda keys: keys.find(kid, alg))

    async def find_replacement(
        self, uri: str, kid: str | None, alg: str, refused: Verifier, *, access: Access = ANYBODY
    ) -> Verifier | None:
        """Return the verifier of a newer key that has the ``kid`` of one that refused a signature.

        The document is fetched again, unless that was done a short time ago.

        Args:
            uri: the address of a JWK set.
            kid: the ``kid`` of the token; None if absent.
            alg: the ``alg`` of the token.
            refused: the verifier that refused the signature, from :meth:`find_published`.
            access: what the fetch may use.

        Returns:
            the verifier; None if the key is still the same, or is not published any more.

        Raises:
            OAuthError: ``temporarily_unavailable``: too many requests wait.
        """
        try:
            body = await self._fetcher.fetch(uri, newer=True, access=access)
            found = self._read(uri, access, body).find(kid, alg)
        except FetchError:
            return None
        return None if found is refused else found

    async def holds_published_certificate(
        self, uri: str, der: bytes, key_thumbprint: str, *, access: Access = ANYBODY
    ) -> bool:
        """Return whether a certificate belongs to one of the keys of an address.

        Args:
            uri: the address of a JWK set.
            der: the certificate.
            key_thumbprint: the RFC 7638 thumbprint of its key.
            access: what the fetch may use.

        Raises:
            FetchError, OAuthError: as :meth:`find_published`.
        """
        held = await self._search(
            uri, access, lambda keys: keys.holds_certificate(der, key_thumbprint) or None
        )
        return held is not None

    async def _search(
        self, uri: str, access: Access, find: Callable[[ForeignKeys], _Found | None]
    ) -> _Found | None:
        """Return what is found in the keys of an address; look once more in a newer document."""
        body = await self._fetcher.fetch(uri, access=access)
        # A document that is not a key set is fetched again as one without the key is.
        with suppress(FetchError):
            found = find(self._read(uri, access, body))
            if found is not None:
                return found
        newer = await self._fetcher.fetch(uri, newer=True, access=access)
        return find(self._read(uri, access, newer))

    def _read(self, uri: str, access: Access, body: bytes) -> ForeignKeys:
        """Return the keys of a document, or those of the last one that was a key set."""
        held = self._published.get((uri, access))
        if held is None or held.body is not body:
            held = self._read_new(uri, body, held)
            _keep(self._published, (uri, access), held)
        if held.keys is None or self._fetcher.now() > held.kept_until:
            raise FetchError("the document is not a JWK set")
        return held.keys

    def _read_new(self, uri: str, body: bytes, held: _Published | None) -> _Published:
        try:
            return _Published(body, self._parse(body), float("inf"))
        except KeysError as error:
            logger.warning("%s has no usable keys: %s", uri, error)
        if held is None:
            return _Published(body, None, 0.0)
        kept_until = self._fetcher.now() + self._fetcher.settings.keep_seconds
        return _Published(body, held.keys, min(held.kept_until, kept_until))


def _keep(cache: OrderedDict[Any, Any], key: object, value: object) -> None:
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > MAXIMUM_KEY_SETS:
        cache.popitem(last=False)
