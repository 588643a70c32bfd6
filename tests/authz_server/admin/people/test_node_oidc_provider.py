"""Log-in at node-oidc-provider without a browser, by a signed assertion of this server."""

import json
from urllib.parse import urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from support.identity_provider import CLIENT_ID, IdentityProvider
from support.people_site import URL, Visitor, running_people_site

CALLBACK = f"{URL}/login/openid/callback"
ACCOUNTS = {"id-of-ada": {"preferred_username": "ada", "groups": ["security"]}}


@pytest.fixture
def site(sqlite_url: str, tmp_path, oidc_provider):
    """The pages of people, whose server holds a key that the provider knows."""
    key = generate_private_key(SECP256R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "private-key").write_bytes(text)
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    metadata = {
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": "ES256",
        "jwks": {"keys": [public]},
    }
    with IdentityProvider(oidc_provider, CALLBACK, ACCOUNTS, **metadata) as provider:
        openid = {
            "issuer": provider.issuer,
            "client_id": CLIENT_ID,
            "private_key": {"file": "private-key"},
            "scopes": ["openid", "profile", "groups"],
            "roles": {"security": ["security-officer"]},
        }
        with running_people_site(tmp_path, sqlite_url, {"admin": {"openid": openid}}) as made:
            yield made


def test_a_person_logs_in(site):
    visitor = Visitor(site)
    url = visitor.get("/login/openid?step_up=1&next=/keys").headers["Location"]
    with httpx.Client() as browser:
        for _ in range(10):
            url = str(browser.get(url).next_request.url)
            if url.startswith(CALLBACK):
                break
    parts = urlsplit(url)
    answer = visitor.get(f"{parts.path}?{parts.query}")
    assert answer.status_code == 303, site.records("operator.sign_in_refused")
    assert answer.headers["Location"] == "/keys"
    assert visitor.caller().name == "ada (id-of-ada)"
    assert visitor.caller().authenticated_at is not None
    # The same answer once more.
    assert visitor.get(f"{parts.path}?{parts.query}").status_code == 400
