"""The logins of orders in the process of the admin API."""

import pytest

from authz_server.admin.key_contexts import KeyContexts
from authz_server.assembly.operator import operator_services
from authz_server.settings import load_settings
from keys.errors import KeysError
from support.parties import ACTOR
from support.settings_file import write_settings


def test_a_login_that_was_missing_is_used_as_soon_as_it_is_there(tmp_path):
    """Without a restart of the process; an open one stays open."""
    secret = tmp_path / "secret-id"
    (tmp_path / "token").write_text("s.token")
    vault = {
        "addresses": ["https://127.0.0.1:8200"],
        "login": {"method": "token", "token_file": str(tmp_path / "token")},
        "rotator_login": {"method": "approle", "role_id": "r", "secret_id_file": str(secret)},
    }
    ring = {"algorithm": "ES256", "backend": "transit://transit/es256", "drive": "rotator"}
    keys = {"rings": {"es256": ring}, "vaults": {"main": vault}}
    settings = load_settings(write_settings(tmp_path, "sqlite:///keys.db", {"keys": keys}))
    with operator_services(settings) as services:
        contexts = KeyContexts(services)
        with pytest.raises(KeysError, match="secret_id_file"):
            contexts.open(ACTOR, looking=False, role="tick")
        secret.write_text("s")
        secret.chmod(0o600)
        opened = contexts.open(ACTOR, looking=False, role="tick")
        assert opened.identity == "rotator"
        assert contexts.open(ACTOR, looking=False).backends is opened.backends
