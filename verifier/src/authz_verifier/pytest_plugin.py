"""Fixtures for the tests of an API: an issuer that needs no server.

`authz_issuer.token("mapper/link")` returns a token; `authz_issuer.url` is the issuer to configure.
"""

from collections.abc import Iterator

import pytest

from authz_verifier.signing import SigningKey
from authz_verifier.testing import LocalIssuer


@pytest.fixture
def authz_issuer() -> Iterator[LocalIssuer]:
    """Return an authorization server of the test's own on loopback."""
    with LocalIssuer() as issuer:
        yield issuer


@pytest.fixture
def authz_proof_key() -> SigningKey:
    """Return a key for DPoP proofs."""
    return SigningKey("ES256")
