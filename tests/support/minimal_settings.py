"""The smallest settings file, with variations; and its refusals."""

import pytest

from authz_server.settings import SettingsError, load_settings

PEPPER = "0123456789abcdef" * 4
KEY = bytes(range(32))
MINIMAL = """
issuer = "https://auth.example/ns/v1"
[clients]
secret_pepper = { file = "pepper" }
[keys]
key_encryption_key = { env = "KEK" }
"""
ENVIRON = {"KEK": KEY.hex()}


def load(folder, *, text=MINIMAL, environ=ENVIRON, top="", more=""):
    """Load a settings file: `top` stands before the tables, `more` after them."""
    pepper = folder / "pepper"
    if not pepper.exists():
        pepper.touch(0o600)
        pepper.write_text(PEPPER + "\n")
    file = folder / "authz-server.toml"
    file.write_text(f"{top}\n{text}\n{more}\n")
    return load_settings(file, environ)


def refusal(folder, **options):
    with pytest.raises(SettingsError) as caught:
        load(folder, **options)
    assert str(caught.value).startswith(f"{folder}/authz-server.toml: ")
    return caught.value


def with_issuer(issuer):
    return MINIMAL.replace("https://auth.example/ns/v1", issuer)
