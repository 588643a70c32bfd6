"""``private_key_jwt``: an assertion signed with the client's private key (RFC 7523, 2.2)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar

import msgspec

from authz_server.clients.authentication.assertions import (
    Assertion,
    AssertionRules,
    ClientAssertion,
)
from authz_server.clients.authentication.method import Verdict
from authz_server.clients.cache import ClientEntry
from authz_server.clients.fetching import FetchError
from authz_server.clients.key_sets import KeySets
from authz_server.database.single_use import SingleUse
from keys.errors import TokenRefusedError
from keys.jose.signatures import Verifier
from keys.jose.stand_ins import spend_one_verification, stand_in_verifier

PRIVATE_KEY_JWT = "private_key_jwt"
#: The credential of an accepted assertion; keys have no rows of their own.
_CREDENTIAL = "key"


class PrivateKeyJwt(ClientAssertion):
    """Verifies assertions by the keys that a client has registered, inline or by address.

    Every assertion of a permitted algorithm costs one verification, also for an unknown client or
    key. The fetch of a key set takes longer, once for any number of requests. A key that replaces
    another one under its ``kid`` costs a second verification, once.

    Args:
        rules: the rules of claims.
        single_use: accepts each assertion once over all processes and nodes.
        key_sets: finds the clients' keys.
        is_foreign: returns whether the issuer of an assertion is another party.
        renew: returns a client whose metadata document may have a new key, and None for any other;
            None: there are no such documents.
    """

    NAMES: ClassVar[tuple[str, ...]] = (PRIVATE_KEY_JWT,)
    REGISTRATIONS: ClassVar[Mapping[str, Sequence[str]]] = {PRIVATE_KEY_JWT: NAMES}
    IS_SYMMETRIC: ClassVar[bool] = False

    def __init__(
        self,
        rules: AssertionRules,
        single_use: SingleUse,
        key_sets: KeySets,
        is_foreign: Callable[[str], bool] = lambda _issuer: False,
        renew: Callable[[str], Awaitable[ClientEntry | None]] | None = None,
    ) -> None:
        super().__init__(rules, single_use, is_foreign)
        self._key_sets = key_sets
        self._renew = renew

    def _verify_signature(self, assertion: Assertion, client: ClientEntry, now: float) -> Verdict:
        del now
        if client.properties.jwks_uri is not None:
            further = partial(self._verify_further, assertion, client)
            return Verdict(cause="assertion_key_unknown", further=further)
        verifier = self._find_inline(assertion, client)
        if self._renew is None or not client.id.startswith("http"):
            return self._judge(assertion, client, verifier)
        former = None if verifier is None else self._judge(assertion, client, verifier)
        if former is not None and former.credential:
            return former
        cause = "assertion_key_unknown" if former is None else former.cause
        further = partial(self._verify_renewed, assertion, client, self._renew, former)
        return Verdict(cause=cause, further=further)

    async def _verify_further(self, assertion: Assertion, client: ClientEntry) -> Verdict:
        """Verify by the keys at the client's address, or by those of a newer document."""
        verdict = await self._verify_by_any(assertion, client)
        if verdict.credential or self._renew is None or not client.id.startswith("http"):
            return verdict
        return await self._verify_renewed(assertion, client, self._renew, verdict)

    async def _verify_renewed(
        self,
        assertion: Assertion,
        client: ClientEntry,
        renew: Callable[[str], Awaitable[ClientEntry | None]],
        former: Verdict | None = None,
    ) -> Verdict:
        """Verify by the newer document of a client, which has its keys inline or at an address.

        Args:
            assertion: the assertion.
            client: the client as the former document describes it.
            renew: returns the client as the newer document describes it.
            former: the verdict by the keys of the former document; None: none of them fits, and
                no signature was verified.
        """
        renewed = await renew(client.id)
        # The keys at hand do not fit, and a document that describes no client has none.
        if renewed is None or (former and renewed.properties == client.properties):
            return former or self._judge(assertion, client, None)
        verdict = await self._verify_by_any(assertion, renewed)
        return msgspec.structs.replace(verdict, client=renewed)

    async def _verify_by_any(self, assertion: Assertion, client: ClientEntry) -> Verdict:
        uri = client.properties.jwks_uri
        if uri is None:
            return self._judge(assertion, client, self._find_inline(assertion, client))
        kid, alg = assertion.token.header.get("kid"), assertion.alg
        try:
            verifier = await self._key_sets.find_published(uri, kid, alg)
        except FetchError:
            return Verdict(cause="assertion_keys_unavailable")
        verdict = self._judge(assertion, client, verifier)
        if verifier is None or verdict.cause != "assertion_signature":
            return verdict
        newer = await self._key_sets.find_replacement(uri, kid, alg, verifier)
        return verdict if newer is None else self._judge(assertion, client, newer)

    def _find_inline(self, assertion: Assertion, client: ClientEntry) -> Verifier | None:
        keys = self._key_sets.read_inline(client.id, client.properties.jwks)
        return keys.find(assertion.token.header.get("kid"), assertion.alg)

    def _judge(
        self, assertion: Assertion, client: ClientEntry, verifier: Verifier | None
    ) -> Verdict:
        """Verify the signature; without a key, by a stand-in that takes the same time."""
        token = assertion.token
        found = verifier or stand_in_verifier(assertion.alg, len(token.signature))
        try:
            found(token.signature, token.signing_input)
        except TokenRefusedError as refusal:
            if not refusal.signature_checked:
                spend_one_verification(assertion.alg, token.signature, token.signing_input)
        else:
            if verifier is not None:
                return self._accept(assertion, client, _CREDENTIAL)
        cause = "assertion_key_unknown" if verifier is None else "assertion_signature"
        return Verdict(cause=cause)
