"""Fixtures of the tests of authz-verifier."""

from collections.abc import Iterator

import pytest

from authz_verifier import Request, Verifier
from authz_verifier.pytest_plugin import authz_proof_key
from authz_verifier.testing import DEFAULT_AUDIENCE, LocalIssuer

__all__ = ["authz_proof_key"]

URL = f"{DEFAULT_AUDIENCE}/mapper/link"


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with LocalIssuer() as local:
        yield local


@pytest.fixture
def verifier(issuer) -> Iterator[Verifier]:
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as made:
        yield made


@pytest.fixture
def present():
    """A function of a token (and proofs): the request to the API."""

    def make(token: str, scheme: str = "Bearer", **parts) -> Request:
        return Request("POST", URL, (f"{scheme} {token}",), **parts)

    return make
