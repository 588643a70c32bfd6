"""``doctor`` checks settings and registrations against profiles."""

import json

import pytest

from support.assertions import jwks_of, new_key
from support.settings_file import write_settings


@pytest.fixture
def registered(cli, prepare):
    """A client with a secret whose tokens are bearer tokens, and a resource server."""
    server = ("resource-server", "create", "mapper", "--name", "Mapper", "--no-secret")
    prepare(
        cli,
        ("scope", "import", "g2p-connect"),
        (*server, "--identifier", "https://mapper.example", "--scope", "mapper/*"),
        ("client", "create", "ministry", "--name", "Ministry", "--scope", "mapper/link"),
    )
    return cli


def findings(cli, *options) -> tuple[int, dict]:
    result = cli.run("doctor", *options, "--json")
    return result.exit_code, json.loads(result.stdout)


def test_fapi2_names_each_registration_and_its_rules(registered):
    status, report = findings(registered, "--profile", "fapi2")
    assert (status, report["met"], report["checked"]) == (1, False, 2)
    found = {(each["subject"], each["problem"]) for each in report["findings"]}
    method = "It must authenticate by private_key_jwt or a TLS client certificate."
    assert found == {
        ("client ministry", method),
        ("client ministry", "Its tokens must be bound to a key."),
        ("resource server mapper", method),
    }
    assert {each["source"] for each in report["findings"]} == {"FAPI 2.0, 5.3.2.1"}


@pytest.mark.parametrize(
    ("alg", "is_met"), [("ES256", True), ("EdDSA", True), ("PS256", True), ("ES384", False)]
)
def test_fapi2_names_a_client_whose_keys_sign_by_no_algorithm_of_it(
    registered, tmp_path, alg: str, *, is_met: bool
):
    path = tmp_path / "client.jwks"
    path.write_text(json.dumps(jwks_of(new_key(alg))))
    method = ("--authentication-method", "private_key_jwt", "--jwks", str(path))
    registered.must(
        "client", "update", "ministry", *method, "--set", "dpop_bound_access_tokens=true"
    )
    found = {
        (each["subject"], each["problem"], each["source"])
        for each in findings(registered, "--profile", "fapi2")[1]["findings"]
        if each["subject"] == "client ministry"
    }
    problem = "A key of its jwks must sign by PS256, ES256 or EdDSA."
    assert found == (set() if is_met else {("client ministry", problem, "FAPI 2.0, 5.4.1")})


def test_recommendations_fail_only_a_strict_check(registered, tmp_path):
    production = {"environment": "production", "logging": {"level": "info"}}
    write_settings(tmp_path, registered.database_url, production)
    status, report = findings(registered, "--profile", "rfc9700")
    assert (status, report["met"]) == (0, True)
    assert {(each["level"], each["source"]) for each in report["findings"]} == {
        ("should", "RFC 9700, 2.5"),
        ("should", "RFC 9700, 2.2.1"),
    }
    assert findings(registered, "--profile", "rfc9700", "--strict")[0] == 1


def test_g2p_connect_names_the_setting_and_the_client(registered):
    registered.must("client", "update", "ministry", "--g2p-answer", "oauth")
    status, report = findings(registered, "--profile", "g2p-connect")
    assert status == 1
    assert [(each["subject"], each["level"]) for each in report["findings"]] == [
        ("g2p.timestamp_required", "must"),
        ("client ministry", "must"),
    ]


def test_by_default_it_checks_the_profiles_of_the_settings_or_all(registered, tmp_path):
    assert findings(registered)[1]["profiles"] == ["fapi2", "g2p-connect", "rfc9700"]
    write_settings(tmp_path, registered.database_url, {"profiles": ["fapi2"]})
    assert findings(registered)[1]["profiles"] == ["fapi2"]


def test_the_report_fits_a_terminal(registered):
    result = registered.run("doctor")
    assert "MUST    fapi2        client ministry\n" in result.stdout
    assert "Checked the settings, clients and resource servers (2) against" in result.stdout
    assert "5 rules and 3 recommendations are not met." in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
