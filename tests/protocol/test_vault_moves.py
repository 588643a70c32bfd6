"""A ring moves while tokens are issued, and nobody who caches the JWKS refuses one of them."""

import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from support.claims import header_of
from support.databases import copied_database
from support.openbao import DevServer
from support.vault_side import await_that
from support.vault_site import VaultFixture

MAXIMUM_AGE_SECONDS = 2
# C + 2R + 2D, the least that the settings allow.
PREPUBLICATION_SECONDS = 6
USUAL = {"drive": "self", "prepublication_seconds": PREPUBLICATION_SECONDS}
# One after the other: from the database to transit, to another algorithm, to another Vault.
RINGS = {
    "first": USUAL | {"backend": "transit://{mount}/first"},
    "second": USUAL | {"backend": "transit://{mount}/second", "algorithm": "EdDSA"},
    "third": USUAL | {"backend": "transit://transit/third?vault=other"},
}


class CachingVerifier:
    """A verifier with PyJWT: it keeps the JWKS for as long as it may, and never asks before."""

    def __init__(self, site: VaultFixture, begins_at: float) -> None:
        self._site = site
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetch_at = begins_at
        self.accepted: list[str] = []
        self.refused: list[dict[str, Any]] = []

    def verify(self, token: str) -> None:
        if not self._keys or time.monotonic() >= self._fetch_at:
            answer = self._site.fetch_jwks()
            assert answer.headers["Cache-Control"] == f"public, max-age={MAXIMUM_AGE_SECONDS}"
            self._fetch_at = time.monotonic() + MAXIMUM_AGE_SECONDS
            self._keys = {key["kid"]: jwt.PyJWK(key) for key in answer.body["keys"]}
        header = header_of(token)
        key = self._keys.get(header["kid"])
        if key is None:
            self.refused.append(header)
            return
        jwt.decode(token, key, algorithms=[header["alg"]], audience="https://mapper.example")
        self.accepted.append(header["kid"])


@pytest.fixture(params=["sqlite", "postgresql"])
def site(openbao: DevServer, request, tmp_path_factory) -> Iterator[VaultFixture]:
    directory = tmp_path_factory.mktemp("site")
    with DevServer() as other, copied_database(request, request.param, directory) as url:
        site = VaultFixture(
            *(directory, url, openbao),
            rings={"remote": None, "local": USUAL},
            keys={"jwks_maximum_age_seconds": MAXIMUM_AGE_SECONDS, "default_ring": "local"},
        )
        token = directory / "other-token"
        token.touch(0o600)
        token.write_text(other.token)
        login = {"method": "token", "token_file": str(token)}
        site.vaults["other"] = {"addresses": [other.address], "login": login}
        other.admin().enable_transit()
        with site:
            yield site


@pytest.mark.timeout(240)
def test_nobody_refuses_a_token_of_a_ring_that_moves(site: VaultFixture):
    """Case G75, Case G76."""
    began = time.monotonic()
    verifiers = [CachingVerifier(site, began + part / 2) for part in range(5)]
    tokens = [site.ask().token]

    def issue_and_verify() -> str:
        tokens.append(site.ask().token)
        for verifier in verifiers:
            verifier.verify(tokens[-1])
        return header_of(tokens[-1])["kid"]

    issue_and_verify()
    for ring, (successor, table) in zip(("local", *RINGS), RINGS.items(), strict=False):
        site.add_ring(successor, table)
        issue_and_verify()
        order = ("keys", "move", ring, "--to", successor, "--reason", "it moves")
        moved = site.command_json(*order)
        assert moved["written"] is True
        kid = site.ring(successor).keys[0].kid
        await_that(lambda kid=kid: issue_and_verify() == kid, f"{successor} signs", 60)
    for _ in range(5):
        issue_and_verify()
    assert [verifier.refused for verifier in verifiers] == [[]] * len(verifiers)
    assert min(len(verifier.accepted) for verifier in verifiers) == len(tokens) - 1
    assert {header_of(token)["alg"] for token in tokens} == {"ES256", "EdDSA"}
    # What the rings signed before they moved is still published, verified and introspected.
    assert {header_of(token)["kid"] for token in tokens} <= set(site.published_kids())
    assert site.introspect(tokens[0]).body["active"] is True
    # A restart changes nothing: rings that have moved are not asked for keys that sign.
    site.server.stop()
    site.server.start()
    assert header_of(site.ask().token)["kid"] == header_of(tokens[-1])["kid"]
