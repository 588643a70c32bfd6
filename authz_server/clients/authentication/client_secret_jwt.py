"""``client_secret_jwt``: an assertion signed with a secret (RFC 7523, 2.2; OpenID Connect Core, 9).

The secrets are derived, so that their records in the database sign nothing
(``docs/decisions/0024-derived-secrets.md``).
"""

import hmac
import os
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from authz_server.clients.authentication.assertions import (
    HMAC_ALGORITHMS,
    Assertion,
    AssertionRules,
    ClientAssertion,
)
from authz_server.clients.authentication.method import Verdict
from authz_server.clients.cache import ClientEntry, SecretEntry
from authz_server.clients.secrets import CLIENT_SECRET_JWT, SECRET_BYTES, SecretScheme
from authz_server.database.single_use import SingleUse


class ClientSecretJwt(ClientAssertion):
    """Verifies assertions by the derived secrets of a client, and by no other key.

    Args:
        rules: the rules of claims.
        single_use: accepts each assertion once over all processes and nodes.
        secrets: the scheme of secrets.
        is_foreign: returns whether the issuer of an assertion is another party.
    """

    NAMES: ClassVar[tuple[str, ...]] = (CLIENT_SECRET_JWT,)
    REGISTRATIONS: ClassVar[Mapping[str, Sequence[str]]] = {CLIENT_SECRET_JWT: NAMES}
    IS_SYMMETRIC: ClassVar[bool] = True

    def __init__(
        self,
        rules: AssertionRules,
        single_use: SingleUse,
        secrets: SecretScheme,
        is_foreign: Callable[[str], bool] = lambda _issuer: False,
    ) -> None:
        super().__init__(rules, single_use, is_foreign)
        self._secrets = secrets
        # Compared if the client has no derived secret; no assertion is signed with it.
        self._dummy = (SecretEntry("", b"", "", 0.0, os.urandom(SECRET_BYTES)),)

    def _verify_signature(self, assertion: Assertion, client: ClientEntry, now: float) -> Verdict:
        token, digest = assertion.token, HMAC_ALGORITHMS[assertion.alg]
        found = None
        for secret in [each for each in client.secrets if each.salt] or self._dummy:
            expected = hmac.digest(self._secrets.derive(secret.salt), token.signing_input, digest)
            fits = hmac.compare_digest(expected, token.signature)
            if fits and (found is None or secret.expires_at > found.expires_at):
                found = secret
        if found is None:
            return Verdict(cause="assertion_signature")
        if now >= found.expires_at:
            return Verdict(found.id, "secret_expired")
        return self._accept(assertion, client, found.id)
