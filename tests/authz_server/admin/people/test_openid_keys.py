"""Keys of an OpenID Connect provider that cannot be read or are replaced, and its many groups."""

import time
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from support.lying_provider import CLIENT_ID, CLIENT_SECRET, LyingProvider
from support.people_site import PeopleSite, Visitor, running_people_site
from support.settings_file import write_secret

CALLBACK = "/login/openid/callback"


@pytest.fixture
def provider():
    with LyingProvider() as made:
        yield made


@pytest.fixture
def people(tmp_path, sqlite_url, provider):
    """The pages of people, with a short cache of the provider's documents."""
    write_secret(tmp_path / "client-secret", CLIENT_SECRET)
    openid = {
        "issuer": provider.issuer,
        "client_id": CLIENT_ID,
        "client_secret": {"file": "client-secret"},
        "roles": {"security": ["security-officer"]},
    }
    tables = {
        "admin": {"openid": openid},
        "outbound": {"plain_http": True, "minimum_cache_seconds": 1},
    }
    with running_people_site(tmp_path, sqlite_url, tables) as site:
        yield site


def log_in(people: PeopleSite, provider: LyingProvider) -> Visitor:
    """Return a browser in which a person came back from the provider."""
    visitor = Visitor(people)
    begun = visitor.get("/login/openid").headers["Location"]
    visitor.get(f"{CALLBACK}?{urlencode(provider.authorise(begun))}")
    return visitor


def test_keys_that_cannot_be_read_keep_nobody_outside(people, provider):
    """RFC 7517, 5: of other types and curves, malformed, or no keys at all."""
    provider.further_keys = [
        {"kty": "EC", "crv": "brainpoolP256r1", "kid": "2", "x": "AA", "y": "AA"},
        {"kty": "AKP", "alg": "ML-DSA-44", "kid": "3", "pub": "AAAA"},
        {"kty": "RSA", "kid": "4", "use": "enc", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "kid": "5", "n": "!!", "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "kid": "6"},
        {"kty": ["EC"]},
        {},
        "a text",
        None,
    ]
    assert log_in(people, provider).caller() is not None


def test_a_key_that_is_replaced_under_its_id_counts(people, provider):
    """A signature that the cached key refuses has the set fetched again, but not at once."""
    assert log_in(people, provider).caller() is not None
    provider.key = generate_private_key(SECP256R1())
    time.sleep(1.1)
    assert log_in(people, provider).caller() is not None
    former, provider.key = provider.key, generate_private_key(SECP256R1())
    assert log_in(people, provider).caller() is None
    provider.key = former
    assert log_in(people, provider).caller() is not None


def test_a_role_is_found_among_any_number_of_groups(people, provider):
    """A person of a large organisation is in hundreds of groups, of which some are kept."""
    provider.claims = {"groups": [*(f"group-{number}" for number in range(1_000)), "security"]}
    caller = log_in(people, provider).caller()
    assert caller is not None
    assert "keys:rotate" in caller.permissions
