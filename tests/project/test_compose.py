"""The compose file: hardened containers, loopback ports, secrets by file, settings that load."""

import re
from hashlib import sha256

import pytest
import yaml

from authz_server.cli.init import SECRET_FILES
from authz_server.cli.invocation import DEFAULT_CONFIG
from authz_server.settings import load_settings
from support.dockerfile import read_dockerfile
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
    for given in SERVICES[service].get("secrets", []):
        name = given if isinstance(given, str) else given["source"]
        assert COMPOSE["secrets"][name]["file"] == f"./secrets/{name}"


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
    server = SERVICES["authz-server"]
    home = server["volumes"][0].partition(":")[2]
    for secret in server["secrets"]:
        file = tmp_path / secret["target"].removeprefix(f"{home}/")
        file.parent.mkdir(exist_ok=True)
        file.write_text(sha256(secret["source"].encode()).hexdigest(), encoding="utf-8")
        file.chmod(0o400)
    path = tmp_path / server["configs"][0]["target"].removeprefix(f"{home}/")
    content = COMPOSE["configs"]["authz-server"]["content"]
    path.write_text(DEFAULT.sub(lambda match: match[1], content), encoding="utf-8")
    settings = load_settings(path)
    assert settings.environment == "production"
    assert settings.database.url.startswith("postgresql")
    published = server["ports"][0].rpartition(":")[2]
    assert settings.server.port == int(published)
    gateway = COMPOSE["networks"]["front"]["ipam"]["config"][0]["gateway"]
    assert settings.server.trusted_proxies == (f"{gateway}/32",)


def test_init_finds_settings_and_secrets_where_it_would_make_them():
    """Case L134"""
    server = SERVICES["authz-server"]
    targets = {secret["target"] for secret in server["secrets"]}
    home = server["volumes"][0].partition(":")[2]
    assert {f"{home}/secrets/{name}" for name in SECRET_FILES} <= targets
    assert server["configs"][0]["target"] == f"{home}/{DEFAULT_CONFIG}"
    dockerfile = read_dockerfile(ROOT / "Dockerfile")
    assert dockerfile.stages[-1].last("WORKDIR") == home
