"""The printed settings for Express at work, and what they let through."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from authz_verifier.signing import SigningKey
from authz_verifier.testing import proof
from support.ports import release_port, reserve_port
from support.printed_settings import Scene, scene
from support.printed_verifiers import replaced, running
from support.probing import documented, probe

__all__ = ["scene"]

SCOPE = "mapper/link"


@pytest.fixture(scope="module")
def express_url(scene: Scene, express: Path) -> Iterator[str]:
    """The address of the printed API in Node."""
    port = reserve_port()
    path = express / f"printed-{port}.js"
    listening = ("app.listen(9000)", 1, f'app.listen({port}, "127.0.0.1")')
    path.write_text(replaced(scene.snippet("node"), listening))
    with running(["node", str(path)], port, scene.folder / "printed.log") as url:
        yield url
    release_port(port)


def test_express_lets_through_what_the_document_says(scene, express_url, tmp_path):
    found = probe(scene, express_url, tmp_path, "POST")
    assert found == documented("express-oauth2-jwt-bearer")


def post(url: str, authorization: str | None, **headers: str) -> httpx.Response:
    given = {} if authorization is None else {"Authorization": authorization}
    return httpx.post(url, headers=given | headers)


def test_express_checks_the_signature_and_does_not_see_a_revocation(scene, express_url):
    """The rules of RFC 9068 hold."""
    token = scene.token(SCOPE)
    assert post(express_url, f"Bearer {token}").json() == {"client": scene.demo.post.id}
    for refused in (None, "Bearer invented", f"Bearer {scene.token('disburse/disburse')}"):
        answer = post(express_url, refused)
        assert answer.status_code == 401, answer.text
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert post(express_url, f"Bearer {scene.token('mapper/resolve')}").status_code == 403
    assert post(f"{express_url}/?access_token={token}", None).status_code == 401
    scene.revoke(token)
    assert post(express_url, f"Bearer {token}").status_code == 200


def test_express_accepts_a_bound_token_with_a_proof_alone(scene, express_url):
    key, endpoint, url = SigningKey("ES256"), f"{scene.server.base_url}/oauth2/token", express_url
    form = {"grant_type": "client_credentials", "scope": SCOPE} | scene.demo.post.form()
    asked = httpx.post(endpoint, data=form, headers={"DPoP": proof(key, "POST", endpoint, "")})
    token = asked.json()["access_token"]
    answer = post(url, f"DPoP {token}", DPoP=proof(key, "POST", f"{url}/", token))
    assert answer.status_code == 200, answer.text
    for scheme in ("Bearer", "DPoP"):
        assert post(url, f"{scheme} {token}").status_code in {400, 401}
