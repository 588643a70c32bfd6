"""Responses: challenges (RFC 6750, 9449, 9728), envelopes, and the resource metadata."""

import json

import pytest

from authz_verifier import Refusal
from authz_verifier.errors import unavailable
from authz_verifier.responses import Responses

ISSUER, AUDIENCE = "https://auth.example.org", "https://mapper.example.org/v1"
METADATA = "https://mapper.example.org/.well-known/oauth-protected-resource/v1"


@pytest.fixture
def responses() -> Responses:
    return Responses(ISSUER, AUDIENCE)


def test_a_request_without_a_token_gets_no_error_code(responses):
    bearer, dpop = responses.challenges(Refusal(401, "", "no token"))
    assert bearer == f'Bearer resource_metadata="{METADATA}"'
    assert dpop.startswith(f'DPoP resource_metadata="{METADATA}", algs="ES256 ')


def test_a_missing_scope_is_named(responses):
    response = responses.refuse(Refusal(403, "insufficient_scope", "x", scopes=("a", "b")))
    challenge = dict(response.headers)["WWW-Authenticate"]
    assert response.status == 403
    assert 'error="insufficient_scope"' in challenge
    assert 'scope="a b"' in challenge


def test_the_reason_is_not_sent(responses):
    response = responses.refuse(Refusal(401, "invalid_token", "expired at noon"))
    assert b"noon" not in response.body
    assert not any("noon" in value for _, value in response.headers)
    assert json.loads(response.body)["error"] == "invalid_token"
    assert ("Cache-Control", "no-store") in response.headers


def test_an_outage_is_a_503_with_a_time(responses):
    response = responses.refuse(unavailable("down", 7))
    assert response.status == 503
    assert dict(response.headers)["Retry-After"] == "7"
    assert "WWW-Authenticate" not in dict(response.headers)


def test_refusals_take_the_form_of_g2p_connect():
    response = Responses(ISSUER, AUDIENCE, "g2p").refuse(Refusal(401, "invalid_token", "x"))
    (error,) = json.loads(response.body)["errors"]
    assert error["code"] == "invalid_token"
    assert error["message"]
    assert any(name == "WWW-Authenticate" for name, _ in response.headers)


def test_the_resource_metadata_has_the_members_of_rfc_9728(responses):
    members = json.loads(responses.metadata_response(["b", "a"]).body)
    assert members["resource"] == AUDIENCE
    assert members["authorization_servers"] == [ISSUER]
    assert members["scopes_supported"] == ["a", "b"]
    assert members["bearer_methods_supported"] == ["header"]
    assert "ES256" in members["dpop_signing_alg_values_supported"]


def test_an_audience_without_a_url_has_no_metadata():
    responses = Responses(ISSUER, "mapper")
    assert responses.resource_metadata_path == ""
    assert responses.challenges(Refusal(401, "", "x"))[0] == "Bearer"


@pytest.mark.parametrize(
    ("audience", "path"),
    [
        ("https://mapper.example.org", ""),
        ("https://mapper.example.org/", ""),
        ("https://mapper.example.org/v1/", "/v1/"),
    ],
)
def test_the_slash_after_the_host_alone_is_removed(audience, path):
    """RFC 9728, 3.1."""
    found = Responses(ISSUER, audience)
    assert found.resource_metadata_path == f"/.well-known/oauth-protected-resource{path}"
    assert found.resource_metadata([])["resource"] == audience
