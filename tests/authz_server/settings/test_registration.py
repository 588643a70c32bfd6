"""The tables of registration and of client ID metadata documents: off, and bounded."""

import pytest

from authz_server.settings import ClientDocumentSettings, RegistrationSettings
from support.minimal_settings import load, refusal


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("maximum_clients = 0", "maximum_clients"),
        ("secret_lifetime_days = -1", "secret_lifetime_days"),
        ("requests_per_window = 0", "requests_per_window"),
        ("window_seconds = 86_401", "window_seconds"),
        ("software_statement_issuers = { registry = 'x' }", "software_statement_issuers"),
        ("software_statement_issuers = { registry = [] }", "software_statement_issuers.registry"),
        ("open = true", "open"),
    ],
)
def test_what_registration_does_not_permit_is_refused(tmp_path, more, key):
    """Case L129."""
    assert refusal(tmp_path, more=f"[registration]\n{more}").key.startswith(f"registration.{key}")


@pytest.mark.parametrize(
    "origin",
    [
        "https://Clients.example",
        "https://clients.example/",
        "https://*.example",
        "clients.example",
        "https://user@clients.example",
        "ftp://clients.example",
        "http://clients.example",
        "https://clients.example:443",
        "https://clients.example:22",
        "https://clients.example:08443",
        "https://127.1",
        "https://clients..example",
    ],
)
def test_only_https_origins_publish_clients(tmp_path, origin):
    """Case L129. Case H92."""
    more = f"[client_id_documents]\nallowed_origins = {{ '{origin}' = [] }}"
    assert refusal(tmp_path, more=more).key == "client_id_documents.allowed_origins"


def test_both_are_off_by_default(tmp_path):
    settings = load(tmp_path)
    assert settings.registration == RegistrationSettings()
    assert settings.client_id_documents == ClientDocumentSettings()
    assert not settings.registration.enabled
    assert settings.client_id_documents.allowed_origins == {}
