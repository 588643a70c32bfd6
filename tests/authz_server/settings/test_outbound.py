"""Tables of documents that are fetched, and of issuers."""

import pytest

from authz_server.clients.outbound import split_url
from authz_server.settings import OutboundSettings
from support.minimal_settings import load, refusal

DEVELOPMENT = 'environment = "development"'
ISSUER = 'issuer = "https://issuer.example"\n'


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('allowed_origins = ["keys.example"]', "allowed_origins[0]"),
        ('allowed_origins = ["https://Keys.example"]', "allowed_origins[0]"),
        ('allowed_origins = ["https://keys.example/"]', "allowed_origins[0]"),
        ('allowed_origins = ["https://a.*.example"]', "allowed_origins[0]"),
        ('allowed_origins = ["https://keys.example", "*"]', "allowed_origins[1]"),
        # No URL has these origins: the default port is no part of one, and others are not fetched.
        ('allowed_origins = ["https://keys.example:443"]', "allowed_origins[0]"),
        ('allowed_origins = ["https://*.keys.example:443"]', "allowed_origins[0]"),
        ('allowed_origins = ["https://keys.example:22"]', "allowed_origins[0]"),
        ('allowed_origins = ["https://keys.example:65536"]', "allowed_origins[0]"),
        ('allowed_origins = ["https://keys.example:08443"]', "allowed_origins[0]"),
        ('allowed_origins = ["https://127.1"]', "allowed_origins[0]"),
        ('allowed_origins = ["https://keys.0x7f"]', "allowed_origins[0]"),
        ('allowed_origins = ["https://*.0.0.1"]', "allowed_origins[0]"),
        ('allowed_origins = ["https://keys..example"]', "allowed_origins[0]"),
        ('allowed_origins = ["https://keys-.example"]', "allowed_origins[0]"),
        ('allowed_origins = ["http://keys.example"]', "allowed_origins[0]"),
        ('allowed_networks = ["10.0.0.1/8"]', "allowed_networks[0]"),
        ("timeout_seconds = 0", "timeout_seconds"),
        ("maximum_bytes = 10_000_000", "maximum_bytes"),
        ("minimum_cache_seconds = 60\nmaximum_cache_seconds = 59", "minimum_cache_seconds"),
        ("plain_http = true", "plain_http"),
        ('ca_file = "missing.pem"', "ca_file"),
    ],
)
def test_a_table_of_outbound_that_cannot_be_used_is_refused(tmp_path, line, key):
    assert refusal(tmp_path, more=f"[outbound]\n{line}").key == f"outbound.{key}"


def test_what_is_fetched_has_defaults(tmp_path):
    assert load(tmp_path).outbound == OutboundSettings()
    assert load(tmp_path, top=DEVELOPMENT, more="[outbound]\nplain_http = true").outbound.plain_http


@pytest.mark.parametrize(
    "origin",
    [
        "https://keys.example",
        "https://*.keys_1.example:1024",
        "https://keys.example:65535",
        "https://localhost:8443",
        "https://192.0.2.1",
        "http://127.0.0.1:8080",
        "http://keys.example",
    ],
)
def test_an_origin_that_is_permitted_is_one_of_a_url(tmp_path, origin):
    """Each permitted origin is that of a URL as the requests read it."""
    table = f"[outbound]\nplain_http = true\nallowed_origins = ['{origin}']"
    settings = load(tmp_path, top=DEVELOPMENT, more=table).outbound
    assert settings.allowed_origins == (origin,)
    url = origin.replace("*", "name") + "/jwks.json"
    assert split_url(url, plain_http=True).origin == origin.replace("*", "name")


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("", "one.issuer"),
        ('issuer = "issuer.example"', "one.issuer"),
        ('issuer = "https://Issuer.example"', "one.issuer"),
        ('issuer = "https://issuer.example/a b"', "one.issuer"),
        ('issuer = "spiffe://Example.org"', "one.issuer"),
        ('issuer = "spiffe://example.org/path"', "one.issuer"),
        ('issuer = "spiffe://example.org"', "one.jwks_uri"),
        (f'{ISSUER}jwks_uri = "https://a.example"\njwks_file = "b"', "one.jwks_uri"),
        (f"{ISSUER}algorithms = []", "one.algorithms"),
        (f'{ISSUER}algorithms = ["HS256"]', "one.algorithms"),
        (f'{ISSUER}algorithms = ["none"]', "one.algorithms"),
        (f"{ISSUER}maximum_lifetime_seconds = 1", "one.maximum_lifetime_seconds"),
        (f'{ISSUER}jwks_file = "missing.json"', "one.jwks_file"),
        (f"{ISSUER}unknown = 1", "one.unknown"),
        ('issuer = "https://auth.example/ns/v1"', "one.issuer"),
        (f"{ISSUER}[issuers.two]\n{ISSUER}", "two.issuer"),
    ],
)
def test_an_issuer_that_cannot_be_used_is_refused(tmp_path, lines, key):
    found = refusal(tmp_path, more=f"[issuers.one]\n{lines}").key
    assert found.split("[")[0] == f"issuers.{key}"


def test_the_name_of_an_issuer_is_a_plain_one(tmp_path):
    assert refusal(tmp_path, more=f'[issuers."a b"]\n{ISSUER}').key == "issuers"


def test_the_files_of_an_issuer_are_relative_to_the_settings(tmp_path):
    (tmp_path / "keys.json").write_text('{"keys": []}')
    lines = f'{ISSUER}jwks_file = "keys.json"\ntoken_file = "token"'
    issuer = load(tmp_path, more=f"[issuers.one]\n{lines}").issuers["one"]
    assert issuer.jwks_file == str(tmp_path / "keys.json")
    assert issuer.token_file == str(tmp_path / "token")
