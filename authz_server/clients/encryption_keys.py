"""The keys to which introspection responses are encrypted (RFC 9701, 5 and 6)."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from authz_server.clients.cache import ClientEntry
from authz_server.clients.fetching import Fetcher, FetchError
from authz_server.clients.key_sets import MAXIMUM_KEY_SETS
from keys.errors import KeysError, TokenRefusedError
from keys.jose.compact import parse_json_object
from keys.jose.encryption import CONTENT_ENCRYPTION, EncryptionKey, is_for_encryption
from keys.jose.foreign import MAXIMUM_KEYS


class Encryption(NamedTuple):
    """The encryption of the responses of a caller.

    Attributes:
        key: the key.
        alg: the algorithm of the key.
        enc: the algorithm of the content.
    """

    key: EncryptionKey
    alg: str
    enc: str

    def encrypt(self, token: str) -> str:
        """Return a signed token within an encrypted one (RFC 7519, 5.2)."""
        return self.key.encrypt(token.encode(), self.alg, self.enc, cty="JWT")


class EncryptionKeys:
    """Finds the keys of callers that registered for encrypted responses.

    Args:
        fetcher: fetches the key sets that callers publish.
    """

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._found: OrderedDict[str, tuple[object, str, EncryptionKey]] = OrderedDict()

    async def find(self, caller: ClientEntry) -> Encryption | None:
        """Return the encryption that the caller registered for; None: it did not.

        Raises:
            FetchError: its key set cannot be fetched, or has no key that fits.
            OAuthError: ``temporarily_unavailable``: too many requests wait.
        """
        properties = caller.properties
        alg = properties.introspection_encrypted_response_alg
        if alg is None:
            return None
        enc = properties.introspection_encrypted_response_enc or CONTENT_ENCRYPTION[0]
        uri = properties.jwks_uri
        if uri is None:
            return Encryption(self._read_key(caller.id, properties.jwks, alg), alg, enc)
        source = await self._fetcher.fetch(uri)
        try:
            key = self._read_key(caller.id, source, alg)
        except FetchError:
            # The set may have been mended.
            key = self._read_key(caller.id, await self._fetcher.fetch(uri, newer=True), alg)
        return Encryption(key, alg, enc)

    def _read_key(self, caller_id: str, source: Any, alg: str) -> EncryptionKey:  # noqa: ANN401 - bytes or a mapping
        held = self._found.get(caller_id)
        if held is None or held[0] is not source or held[1] != alg:
            held = source, alg, find_encryption_key(_read(source), alg)
            self._found[caller_id] = held
            self._found.move_to_end(caller_id)
            if len(self._found) > MAXIMUM_KEY_SETS:
                self._found.popitem(last=False)
        return held[2]


def find_encryption_key(document: Mapping[str, Any], alg: str) -> EncryptionKey:
    """Return the first key of a JWK set that is for encryption by an algorithm.

    Raises:
        FetchError: there is none.
    """
    keys = document.get("keys")
    for jwk in keys[:MAXIMUM_KEYS] if isinstance(keys, list) else ():
        if is_for_encryption(jwk):
            try:
                key = EncryptionKey(jwk)
            except KeysError:
                # A published set may have keys of other kinds (RFC 7517, 5).
                continue
            if alg in key.algorithms:
                return key
    raise FetchError(f"the key set has no key for {alg} with use enc")


def _read(source: bytes | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if not isinstance(source, bytes):
        return source or {}
    try:
        return parse_json_object(source)
    except TokenRefusedError:
        raise FetchError("the document is not a JWK set") from None
