"""Profiles refuse settings that contradict them."""

import pytest

from authz_server.settings import SettingsError, load_settings
from authz_server.settings.profiles import (
    permits_method,
    permitted_algorithms,
    requires_bound_tokens,
)
from support.settings_file import write_settings

RS256 = {"keys": {"rings": {"es256": {"algorithm": "RS256"}}}}
PROXY = {"trusted_proxies": ["127.0.0.1"]}

CONTRADICTIONS = [
    ("fapi2", {"issuer": "http://127.0.0.1:8080"}, "issuer", "must be an https URL"),
    ("fapi2", RS256, "keys.rings.es256.algorithm", "must be PS256, ES256 or EdDSA"),
    (
        "fapi2",
        {"assertions": {"algorithms": ["RS256"]}},
        "assertions.algorithms",
        "must not contain RS256",
    ),
    ("fapi2", {"dpop": {"enabled": False}}, "dpop.enabled", "must be true, or"),
    (
        "fapi2",
        {"dpop": {"algorithms": ["ES384"]}},
        "dpop.algorithms",
        "must contain PS256, ES256 or EdDSA, or",
    ),
    (
        "fapi2",
        {"assertions": {"algorithms": ["ES512", "HS256"]}},
        "assertions.algorithms",
        "must contain PS256, ES256 or EdDSA, or",
    ),
    ("fapi2", {"tokens": {"clock_skew_seconds": 9}}, "tokens.clock_skew_seconds", "must be at"),
    (
        "fapi2",
        {"issuers": {"cloud": {"issuer": "https://cloud.example", "algorithms": ["RS256"]}}},
        "issuers.cloud.algorithms",
        "must contain PS256, ES256 or EdDSA",
    ),
    ("g2p-connect", {"g2p": {"enabled": False}}, "g2p.enabled", "must be true"),
    ("g2p-connect", {}, "g2p.timestamp_required", "must be true"),
    (
        "g2p-connect",
        {"g2p": {"timestamp_required": True, "expires_in": "number"}},
        "g2p.expires_in",
        'must be "string"',
    ),
    (
        "g2p-connect",
        {"g2p": {"timestamp_required": True, "token_type": "Bearer"}},
        "g2p.token_type",
        'must be "bearer"',
    ),
    ("rfc9700", {"issuer": "http://127.0.0.1:8080"}, "issuer", "must be an https URL"),
    ("rfc9700", {}, "environment", 'must be "production"'),
    (
        "rfc9700",
        {
            "environment": "production",
            "logging": {"level": "info"},
            "tokens": {"several_resource_servers": "both"},
        },
        "tokens.several_resource_servers",
        'must be "refuse"',
    ),
]


@pytest.mark.parametrize(("profile", "overrides", "key", "problem"), CONTRADICTIONS)
def test_a_contradicting_setting_is_refused_with_its_rule(
    tmp_path, profile: str, overrides: dict, key: str, problem: str
):
    database = f"sqlite:///{tmp_path / 'file.sqlite'}"
    path = write_settings(tmp_path, database, overrides | {"profiles": [profile]})
    with pytest.raises(SettingsError) as refused:
        load_settings(path)
    assert f"{key}: {problem}" in str(refused.value)
    assert f"(profile {profile}: " in str(refused.value)
    if not (profile == "rfc9700" and key == "environment") and overrides:
        load_settings(write_settings(tmp_path, database, overrides))


def test_profiles_are_enabled_together(tmp_path):
    overrides = {
        "profiles": ["fapi2", "rfc9700", "g2p-connect"],
        "environment": "production",
        "logging": {"level": "info"},
        "g2p": {"timestamp_required": True},
    }
    database = f"sqlite:///{tmp_path / 'file.sqlite'}"
    settings = load_settings(write_settings(tmp_path, database, overrides))
    assert settings.profiles == ("fapi2", "rfc9700", "g2p-connect")


def test_an_unknown_profile_is_refused(tmp_path):
    path = write_settings(tmp_path, "sqlite:///file.sqlite", {"profiles": ["fapi1"]})
    with pytest.raises(SettingsError, match="profiles"):
        load_settings(path)


def test_fapi2_narrows_methods_and_algorithms_and_binds_tokens():
    offered = ("RS256", "ES256", "ES384", "PS256", "EdDSA", "HS256")
    assert permitted_algorithms(["fapi2"], offered) == ("ES256", "PS256", "EdDSA")
    assert permitted_algorithms(["rfc9700"], offered) == offered
    assert permits_method(["fapi2"], "private_key_jwt")
    assert not permits_method(["fapi2"], "client_secret_basic")
    assert permits_method([], "client_secret_basic")
    assert requires_bound_tokens(["rfc9700", "fapi2"])
    assert not requires_bound_tokens(["rfc9700"])
