"""The compose file: hardened containers, loopback ports, secrets by file, settings that load."""

import re
from hashlib import sha256

import pytest
import yaml

from authz_server.settings import load_settings
from support.source_tree import ROOT

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")


def test_three_services_and_the_server_waits_for_its_database():
    """Case L134"""
    assert set(SERVICES) == {"authz-server", "postgres", "openbao"}
    waits_for = SERVICES["authz-server"]["depends_on"]
    assert waits_for == {"postgres": {"condition": "service_healthy"}}


@pytest.mark.parametrize("service", SERVICES)
def test_container_is_read_only_and_gains_no_privileges(service):
    """Case L134"""
    described = SERVICES[service]
    assert described["read_only"] is True
    assert described["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in described
    assert "cap_add" not in described
    assert "network_mode" not in described


def test_the_server_alone_is_published_and_on_loopback_alone():
    """Case L134"""
    published = {
        name: described["ports"] for name, described in SERVICES.items() if "ports" in described
    }
    assert list(published) == ["authz-server"]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published["authz-server"])
    assert COMPOSE["networks"]["back"] == {"internal": True}


@pytest.mark.parametrize("service", SERVICES)
def test_image_can_be_named_by_digest_and_is_never_the_latest(service):
    """Case L134"""
    image = SERVICES[service]["image"]
    default = DEFAULT.fullmatch(image)[1]
    assert service == "authz-server" or re.fullmatch(r"[a-z/]+:\d[\d.]*", default)


@pytest.mark.parametrize("service", SERVICES)
def test_secrets_come_from_files_alone(service):
    """Case L134"""
    environment = SERVICES[service].get("environment", {})
    secret = re.compile("password|secret|token|key", re.IGNORECASE)
    assert all(name.endswith("_FILE") for name in environment if secret.search(name))
    declared = COMPOSE["secrets"]
    assert all(
        declared[name]["file"].startswith("./secrets/")
        for name in SERVICES[service].get("secrets", [])
    )


def test_secret_files_are_never_committed():
    """Case L134"""
    assert "/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert (ROOT / ".dockerignore").read_text(encoding="utf-8").split()[0] == "*"


@pytest.mark.parametrize("service", ["postgres", "openbao"])
def test_bought_in_services_have_health_checks(service):
    """Case L134"""
    assert SERVICES[service]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


def test_settings_in_it_are_fit_for_production(tmp_path):
    """Case L134, L130"""
    text = DEFAULT.sub(lambda match: match[1], COMPOSE["configs"]["authz-server"]["content"])
    for name in COMPOSE["secrets"]:
        file = tmp_path / name
        file.write_text(sha256(name.encode()).hexdigest(), encoding="utf-8")
        file.chmod(0o400)
    path = tmp_path / "config.toml"
    path.write_text(text.replace("/run/secrets/", f"{tmp_path}/"), encoding="utf-8")
    settings = load_settings(path)
    assert settings.environment == "production"
    assert settings.database.url.startswith("postgresql")
    published = SERVICES["authz-server"]["ports"][0].rpartition(":")[2]
    assert settings.server.port == int(published)
    gateway = COMPOSE["networks"]["front"]["ipam"]["config"][0]["gateway"]
    assert settings.server.trusted_proxies == (f"{gateway}/32",)
