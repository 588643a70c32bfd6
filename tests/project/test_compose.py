"""The compose file: hardened containers, loopback ports, secrets by file, settings that load."""

import re
import tomllib
from pathlib import Path

import pytest

from authz_server.cli.invocation import DEFAULT_CONFIG
from authz_server.operations.installation import SECRET_FILES
from authz_server.settings import load_settings
from support.compose import COMPOSE, ISSUER, SERVICES, check_of, prepare
from support.dockerfile import read_dockerfile
from support.source_tree import ROOT

DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")
SERVER_USER = "10001"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder in which the commands at the top of the file were carried out."""
    return prepare(tmp_path)


def test_three_services_and_the_server_waits_for_a_healthy_database():
    """Case L134"""
    assert set(SERVICES) == {"authz-server", "postgres", "openbao"}
    waits_for = SERVICES["authz-server"]["depends_on"]
    assert waits_for == {"postgres": {"condition": "service_healthy"}}


@pytest.mark.parametrize("service", SERVICES)
def test_container_is_read_only_without_capabilities_and_gains_no_privileges(service):
    """Case L134"""
    described = SERVICES[service]
    assert described["read_only"] is True
    assert described["security_opt"] == ["no-new-privileges:true"]
    assert described["cap_drop"] == ["ALL"]
    assert "privileged" not in described
    assert "cap_add" not in described
    assert "network_mode" not in described


def test_postgresql_runs_the_script_for_the_role_at_its_first_start():
    """Case L134"""
    (config,) = SERVICES["postgres"]["configs"]
    assert re.fullmatch(r"/docker-entrypoint-initdb\.d/[\w-]+\.sql", config["target"])
    assert COMPOSE["configs"][config["source"]]["file"] == "./deploy/compose/postgresql.sql"
    assert "database-password" in SERVICES["postgres"]["secrets"]


def test_postgresql_needs_no_root_to_become_its_user():
    """Case L134"""
    assert SERVICES["postgres"]["user"] == "999:999"
    assert SERVICES["postgres"]["group_add"] == [SERVER_USER]


def test_the_two_listeners_of_the_server_are_published_and_on_loopback_alone():
    """Case L134"""
    published = {
        name: described["ports"] for name, described in SERVICES.items() if "ports" in described
    }
    assert published == {"authz-server": ["127.0.0.1:8080:8080", "127.0.0.1:8081:8081"]}
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
    assert "env_file" not in SERVICES[service]
    for given in SERVICES[service].get("secrets", []):
        name = given if isinstance(given, str) else given["source"]
        assert COMPOSE["secrets"][name] == {"file": f"./secrets/{name}"}


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_is_copied_into_a_read_only_container(service):
    """A `content` would be: Compose mounts files alone."""
    configs = SERVICES[service]["configs"]
    assert all(set(COMPOSE["configs"][config["source"]]) == {"file"} for config in configs)


def test_secret_files_and_the_settings_are_never_committed():
    """Case L134"""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert {"/secrets/", "/config.toml"} <= set(ignored)
    assert COMPOSE["configs"]["authz-server"]["file"] == "./config.toml"
    assert (ROOT / ".dockerignore").read_text(encoding="utf-8").split()[0] == "*"


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_a_health_check(service):
    """Case L134"""
    assert SERVICES[service]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


def test_the_server_is_healthy_when_it_is_ready():
    """Case L134"""
    assert "http://127.0.0.1:8081/health/ready'" in check_of("authz-server")[-1]


def test_the_commands_at_the_top_make_every_file_for_the_users_that_need_it(folder):
    """Case L134"""
    made = {f"./{path.relative_to(folder)}" for path in folder.rglob("*") if path.is_file()}
    mounted = [COMPOSE["secrets"][name]["file"] for name in COMPOSE["secrets"]]
    assert set(mounted) <= made
    owners = dict(line.split()[::-1] for line in (folder / "chown.log").read_text().splitlines())
    assert owners == {
        "secrets/key-encryption-key": f"{SERVER_USER}:{SERVER_USER}",
        "secrets/pepper": f"{SERVER_USER}:{SERVER_USER}",
        "secrets/postgres-password": "999:999",
        "secrets/database-password": f"0:{SERVER_USER}",
    }
    modes = {path: (folder / path).stat().st_mode & 0o777 for path in owners}
    assert modes.pop("secrets/database-password") == 0o640
    assert set(modes.values()) == {0o600}
    assert (folder / "config.toml").stat().st_mode & 0o777 == 0o644


def test_settings_in_it_are_fit_for_production(folder):
    """Case L134, L130"""
    server = SERVICES["authz-server"]
    home = server["volumes"][0].partition(":")[2]
    targets = {secret["source"]: secret["target"] for secret in server["secrets"]}
    # What other users own in production belongs to this one here.
    (folder / "secrets/database-password").chmod(0o600)
    assert targets == {
        name: f"{home}/{COMPOSE['secrets'][name]['file'].removeprefix('./')}" for name in targets
    }
    settings = load_settings(folder / "config.toml")
    assert settings.environment == "production"
    assert settings.database.url.startswith("postgresql")
    ports = [int(each.rpartition(":")[2]) for each in server["ports"]]
    assert [settings.server.port, settings.server.health_port] == ports
    # A published port does not reach the loopback of the container.
    assert settings.server.host == settings.server.health_host == "0.0.0.0"
    gateway = COMPOSE["networks"]["front"]["ipam"]["config"][0]["gateway"]
    assert settings.server.trusted_proxies == (f"{gateway}/32",)


def test_the_settings_differ_from_the_file_in_deploy_by_their_issuer_alone(folder):
    shipped = tomllib.loads((ROOT / "deploy/compose/authz-server.toml").read_text("utf-8"))
    made = tomllib.loads((folder / "config.toml").read_text("utf-8"))
    assert made == shipped | {"issuer": ISSUER}


def test_init_finds_settings_and_secrets_where_it_would_make_them():
    """Case L134"""
    server = SERVICES["authz-server"]
    targets = {secret["target"] for secret in server["secrets"]}
    home = server["volumes"][0].partition(":")[2]
    assert {f"{home}/secrets/{name}" for name in SECRET_FILES} <= targets
    assert server["configs"][0]["target"] == f"{home}/{DEFAULT_CONFIG}"
    dockerfile = read_dockerfile(ROOT / "Dockerfile")
    assert dockerfile.stages[-1].last("WORKDIR") == home
