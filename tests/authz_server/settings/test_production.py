"""Settings that production refuses and development permits."""

import pytest

from support.minimal_settings import load, refusal

PRODUCTION_ONLY = {
    "logging.level": "[logging]\nlevel = 'debug'",
    "server.host": "[server]\nhost = '0.0.0.0'",
    "server.trusted_proxies": "[server]\nhost = '0.0.0.0'\ntrusted_proxies = ['0.0.0.0/0']",
    "keys.rings.es256.backend": "[keys.rings.es256]\nbackend = 'memory://'",
}


@pytest.mark.parametrize(("key", "more"), PRODUCTION_ONLY.items(), ids=PRODUCTION_ONLY)
def test_production_refuses_what_development_permits(tmp_path, key, more):
    """Case L130, Case I107."""
    assert refusal(tmp_path, more=more).key == key
    assert load(tmp_path, more=more, top="environment = 'development'")


@pytest.mark.parametrize(
    "more", ["trusted_proxies = ['10.1.0.0/16']", "tls_certificate = 'a'\ntls_private_key = 'b'"]
)
def test_an_open_listener_needs_tls_or_a_proxy(tmp_path, more):
    """Case L130."""
    for name in ("a", "b"):
        (tmp_path / name).touch(0o600)
    assert load(tmp_path, more=f"[server]\nhost = '0.0.0.0'\n{more}").server.host == "0.0.0.0"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_production_refuses_a_secret_file_open_to_others(tmp_path, mode):
    """Case L130."""
    load(tmp_path)
    (tmp_path / "pepper").chmod(mode)
    error = refusal(tmp_path)
    assert error.key == "clients.secret_pepper"
    assert error.remedy == f"Run: chmod 600 {tmp_path}/pepper"
    assert load(tmp_path, top="environment = 'development'")


@pytest.mark.parametrize("table", ["server", "admin"])
def test_production_refuses_a_tls_key_open_to_others(tmp_path, table):
    """Case L130."""
    (tmp_path / "tls").touch(0o644)
    (tmp_path / "tls").chmod(0o644)
    more = f"[{table}]\ntls_certificate = 'tls'\ntls_private_key = 'tls'"
    assert refusal(tmp_path, more=more).key == f"{table}.tls_private_key"
