"""load_settings: what it accepts, what it refuses, and that a refusal names file and key."""

import msgspec
import pytest

from authz_server.settings import (
    DatabaseSettings,
    RuleError,
    ServerSettings,
    SettingsError,
    TokenSettings,
    describe_settings,
    load_settings,
)
from support.minimal_settings import KEY, MINIMAL, PEPPER, load, refusal, with_issuer


def test_a_minimal_file_gives_the_defaults_and_the_secrets(tmp_path):
    settings = load(tmp_path)

    assert settings.issuer == "https://auth.example/ns/v1"
    assert settings.environment == "production"
    assert settings.clients.secret_pepper.reveal() == PEPPER.encode()
    assert settings.keys.key_encryption_key.reveal() == KEY
    assert settings.tokens == TokenSettings()
    assert set(settings.keys.rings) == {"es256", "rs256"}


@pytest.mark.parametrize(
    ("top", "more", "key"),
    [
        ("isuer = 1", "", "isuer"),
        ("", "[server]\nprot = 1", "server.prot"),
        ("", "[keys.rings.main]\nalgoritm = 'ES256'", "keys.rings.main.algoritm"),
        ("", "[keys.rings.one]\n[keys.rings.two]\nbackend = 3", "keys.rings.two.backend"),
        ("", "[server]\nport = '8080'", "server.port"),
        ("", "[server]\nport = true", "server.port"),
        ("", "[server]\nport = 8080.5", "server.port"),
        ("", "[server]\ntrusted_proxies = ['10.0.0.0/8', 7]", "server.trusted_proxies[1]"),
        ("", "[g2p]\nenabled = 1", "g2p.enabled"),
        ("server = 3", "", "server"),
        ("environment = 'staging'", "", "environment"),
        ("", "[logging]\nformat = 'xml'", "logging.format"),
        ("", "[plugins.settings]\nscope_array = 1", "plugins.settings.scope_array"),
        ("", "[admin.openid.roles]\na = []\nb = 1", "admin.openid.roles.b"),
        ("", "[admin.openid.roles]\na = []\nb = [1]", "admin.openid.roles.b[0]"),
    ],
)
def test_unknown_keys_and_wrong_types_are_named(tmp_path, top, more, key):
    """Case L129."""
    assert refusal(tmp_path, top=top, more=more).key == key


@pytest.mark.parametrize("key", ["issuer", "secret_pepper", "key_encryption_key"])
def test_what_has_no_default_must_be_set(tmp_path, key):
    """Case L129."""
    text = "\n".join(line for line in MINIMAL.splitlines() if not line.startswith(key))
    error = refusal(tmp_path, text=text)
    assert error.key.rpartition(".")[2] == key
    assert error.problem == "must be set"


def test_a_fixed_list_of_values_is_told(tmp_path):
    error = refusal(tmp_path, more="[tokens]\nscope_spelling = 'short'")
    assert error.key == "tokens.scope_spelling"
    assert error.remedy == "Use one of canonical, requested."


def test_a_number_out_of_range_is_refused_with_its_bounds(tmp_path):
    for port in ("0", "-1", "65536", str(2**70)):
        error = refusal(tmp_path, more=f"[server]\nport = {port}")
        assert (error.key, error.problem) == ("server.port", f"{port} is outside 1 to 65535")


@pytest.mark.parametrize(
    "issuer",
    [
        "http://auth.example",
        "http://127.0.0.1:8080",
        "ftp://auth.example",
        "auth.example",
        "https://auth.example/",
        "https://auth.example/ns/",
        "https://auth.example?x=1",
        "https://auth.example?",
        "https://auth.example#f",
        "https://auth.example#",
        "https://user@auth.example",
        "https://user:pw@auth.example",
        "https://Auth.example",
        "https://auth.example/a b",
        "https://auth.example/a/../b",
        "https://auth.example/a//b",
        "https://auth.example:99999",
        "https://auth.example:x",
        "https://[::1",
        "https://",
        "https://münchen.example",
        "https://auth.example\\\\evil",
        "",
    ],
)
def test_an_issuer_that_tokens_could_not_carry_is_refused(tmp_path, issuer):
    """Case L129."""
    assert refusal(tmp_path, text=with_issuer(issuer)).key == "issuer"


@pytest.mark.parametrize(
    "issuer",
    ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080", "http://127.8.0.1"],
)
def test_plain_http_is_for_loopback_in_development(tmp_path, issuer):
    """Case L130."""
    text = with_issuer(issuer)
    assert load(tmp_path, text=text, top="environment = 'development'").issuer == issuer
    assert refusal(tmp_path, text=text).key == "issuer"
    elsewhere = with_issuer("http://auth.example")
    assert refusal(tmp_path, text=elsewhere, top="environment = 'development'").key == "issuer"


@pytest.mark.parametrize(
    ("prefix", "accepted"), [("", True), ("/ns/v1", True), ("/ns", False), ("/other", False)]
)
def test_the_mount_prefix_is_the_path_of_the_issuer_or_empty(tmp_path, prefix, accepted):
    more = f"[server]\nmount_prefix = '{prefix}'"
    if accepted:
        assert load(tmp_path, more=more).server.mount_prefix == prefix
    else:
        assert refusal(tmp_path, more=more).key == "server.mount_prefix"


def test_further_hosts_are_values_of_the_host_header(tmp_path):
    hosts = ["auth.internal", "auth.internal:8443", "10.0.0.7", "[2001:db8::1]:8443"]
    assert load(tmp_path, more=f"[server]\nhosts = {hosts}").server.hosts == tuple(hosts)


CONTRADICTIONS = {
    "server.host": "[server]\nhost = 'auth.example'",
    "server.port": "[server]\nport = 0",
    "server.health_port": "[server]\nport = 9000\nhealth_port = 9000",
    "server.workers": "[server]\nworkers = 0",
    "server.mount_prefix": "[server]\nmount_prefix = 'ns/'",
    "server.trusted_proxies[0]": "[server]\ntrusted_proxies = ['10.0.0.1/8']",
    "server.hosts[1]": "[server]\nhosts = ['auth.internal:8443', 'https://auth.internal']",
    "server.hosts[0]": "[server]\nhosts = ['Auth.internal']",
    "server.forwarded_header": "[server]\nforwarded_header = 'x_forwarded_for'",
    "server.keep_alive_seconds": "[server]\nkeep_alive_seconds = 0",
    "server.body_timeout_seconds": "[server]\nbody_timeout_seconds = 301",
    "server.maximum_connections": "[server]\nmaximum_connections = 0",
    "server.maximum_connections_per_address": "[server]\nmaximum_connections_per_address = 0",
    "server.maximum_bodies_per_address": "[server]\nmaximum_bodies_per_address = 0",
    "server.maximum_waiting_requests": "[server]\nmaximum_waiting_requests = 0",
    "server.maximum_value_bytes": "[server]\nmaximum_body_bytes = 2048\nmaximum_value_bytes = 4096",
    "server.tls_certificate": "[server]\ntls_certificate = 'pepper'",
    "server.tls_private_key": "[server]\ntls_certificate = 'pepper'\ntls_private_key = 'none.pem'",
    "database.url": "[database]\nurl = 'mysql://user@host/name'",
    "database.several_nodes": "[database]\nseveral_nodes = true",
    "database.password": "[database]\npassword = { file = 'pepper' }",
    "database.refresh_interval_milliseconds": "[database]\nrefresh_interval_milliseconds = 1000",
    "database.pool_size": "[database]\npool_size = -1",
    "clients.failures_per_window": "failures_per_window = 0",
    "keys.default_ring": "[keys.rings.other]",
    "keys.rings.es256.algorithm": "[keys.rings.es256]\nalgorithm = 'HS256'",
    "keys.rings.es256.backend": "[keys.rings.es256]\nbackend = 'sql'",
    "keys.rings.ES256": "[keys.rings.ES256]",
    "introspection.signing_ring": "[introspection]\nsigning_ring = 'rs512'",
    "tokens.default_lifetime_seconds": "[tokens]\nmaximum_lifetime_seconds = 899",
    "tokens.maximum_lifetime_seconds": "[tokens]\nmaximum_lifetime_seconds = 3601",
    "tokens.clock_skew_seconds": "[tokens]\nclock_skew_seconds = 61",
    "g2p.timestamp_window_seconds": "[g2p]\ntimestamp_window_seconds = 0",
    "g2p.default_language": "[g2p]\ndefault_language = '../en'",
    "g2p.token_type": "[g2p]\ntoken_type = 'be\\tarer'",
    "g2p.catalogue_directory": "[g2p]\ncatalogue_directory = 'missing'",
    "revocation.enabled": "[introspection]\nenabled = false",
    "revocation.sweep_batch_rows": "[revocation]\nsweep_batch_rows = 0",
    "audit.destination": "[audit]\ndestination = ''",
    "plugins.enabled": "[plugins]\nenabled = ['one', 'one']",
    "plugins.settings.one": "[plugins.settings.one]\nx = 1",
}


@pytest.mark.parametrize(("key", "more"), CONTRADICTIONS.items(), ids=CONTRADICTIONS)
def test_values_out_of_range_and_contradictions_name_their_key(tmp_path, key, more):
    """Case B27, Case L129."""
    table = key.partition(".")[0]
    text = MINIMAL
    if table == "clients":
        text = text.replace("[clients]", f"[clients]\n{more}")
        more = ""
    assert refusal(tmp_path, text=text, more=more).key == key


REPLACED = "Tables [keys.rings.NAME] replace the default rings: list es256 and rs256, too."


@pytest.mark.parametrize(
    ("keys", "more", "remedy"),
    [
        ("", "[keys.rings.other]", REPLACED),
        ("", "[keys.rings.es256]\n[introspection]\nsigning_ring = 'rs256'", REPLACED),
        ("default_ring = 'es265'", "", "The rings are es256, rs256."),
        ("", "[introspection]\nsigning_ring = 'es265'", "The rings are es256, rs256."),
        ("default_ring = 'es265'", "[keys.rings.es256]", "The rings are es256."),
        ("default_ring = 'new'\nrings = {}", "", "Add a table [keys.rings.NAME]."),
    ],
)
def test_a_ring_that_is_not_there_has_a_remedy_for_its_cause(tmp_path, keys, more, remedy):
    text = MINIMAL.replace("[keys]", f"[keys]\n{keys}")
    assert refusal(tmp_path, text=text, more=more).remedy == remedy


@pytest.mark.parametrize(
    "value", ["0", "-1", str(2**63), "1e400", "nan", "'3600abc'", "3601", "900.5"]
)
@pytest.mark.parametrize("name", ["default_lifetime_seconds", "maximum_lifetime_seconds"])
def test_lifetimes_that_are_no_lifetimes_are_refused(tmp_path, name, value):
    """Case B27."""
    assert refusal(tmp_path, more=f"[tokens]\n{name} = {value}").key == f"tokens.{name}"


def test_a_database_url_that_is_none_does_not_show_its_password(tmp_path):
    error = refusal(tmp_path, more="[database]\nurl = 'postgresql://a:hidden@db:port/a'")
    assert error.key == "database.url"
    assert "hidden" not in str(error)


def test_relative_paths_are_relative_to_the_settings_file(tmp_path, monkeypatch):
    (tmp_path / "languages").mkdir()
    monkeypatch.chdir("/")
    more = "[audit]\ndestination = 'audit.jsonl'\n[g2p]\ncatalogue_directory = 'languages'"
    for table in ("server", "admin"):
        more += f"\n[{table}]\ntls_certificate = 'tls'\ntls_private_key = 'tls'"
    (tmp_path / "tls").touch(0o600)
    settings = load(tmp_path, more=more)
    for listener in (settings.server, settings.admin):
        assert listener.tls_certificate == listener.tls_private_key == f"{tmp_path}/tls"

    assert settings.audit.destination == f"{tmp_path}/audit.jsonl"
    assert settings.g2p.catalogue_directory == f"{tmp_path}/languages"
    assert settings.database.url == f"sqlite:///{tmp_path}/authz-server.db"
    absolute = load(tmp_path, more="[database]\nurl = 'sqlite:////var/lib/authz.db'")
    assert absolute.database.url == "sqlite:////var/lib/authz.db"


def test_the_view_shows_every_key_and_no_secret(tmp_path):
    """Case L130."""
    settings = load(tmp_path, more="[server]\nworkers = 2")
    views = describe_settings(settings)

    by_key = {view.key: view for view in views}
    assert by_key["clients.secret_pepper"].value == "(set)"
    assert by_key["server.workers"] == ("server.workers", 2, False)
    assert by_key["server.threads"] == ("server.threads", 4, True)
    assert by_key["keys.rings.es256.algorithm"].is_default
    assert msgspec.json.encode(views)
    for shown in (repr(views), repr(settings), str(settings)):
        assert PEPPER not in shown
        assert repr(KEY) not in shown


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"issuer = ", "not TOML"),
        (b"\xff", "not UTF-8"),
        (b"issuer = 1\nissuer = 2", "not TOML"),
        (b"issuer = 'a'\rport = 1", "not TOML"),
        (b"port = " + b"1" * 5_000, "not TOML"),
        (b"a." * 5_000 + b"b = 1", "nested too deeply"),
        (b"a = " + b"[" * 400 + b"]" * 400, "there is no such key|nested too deeply"),
        (b"database", "not TOML"),
        (b"[audit]\n[audit]", r"Cannot declare \[audit\] twice \(at line 2"),
        (b"[keys.rings.a]\n[keys.rings.a]", r"Cannot declare \[keys.rings.a\] twice"),
        (b"[server\nport = 1", "not TOML"),
        (b"\xef\xbb\xbf\xef\xbb\xbfissuer = 'a'", "not TOML"),
        ("issuer = 'é'".encode("latin-1"), "not UTF-8"),
    ],
)
def test_a_file_that_is_not_toml_is_refused(tmp_path, content, problem):
    """Case L129."""
    file = tmp_path / "authz-server.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=problem) as caught:
        load_settings(file, {})
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("[server]\nport = 0x" + "f" * 5_000, "server.port"),
        ("[server]\nport = 1e400", "server.port"),
        (
            "[keys.rings.'a.b']\nprepublication_seconds = -1",
            "keys.rings.a.b.prepublication_seconds",
        ),
        (
            "[audit]\ndestination = 2026-01-01",
            "audit.destination: must be a string in quotes, not a date",
        ),
        ("[database]\nurl = 07:32:00", "database.url: must be a string in quotes, not a time"),
    ],
)
def test_values_that_cannot_be_read_are_named(tmp_path, more, key):
    """Case L129. Case R242."""
    assert key in str(refusal(tmp_path, more=more))


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(SettingsError, match="authz-server init"):
        load_settings(tmp_path / "none.toml", {})
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path, {})


def test_structs_built_by_hand_keep_the_same_rules():
    assert DatabaseSettings(url="postgresql://u@h/d").url == "postgresql+psycopg://u@h/d"
    with pytest.raises(RuleError, match="health_port"):
        ServerSettings(port=8081)
    with pytest.raises(AttributeError):
        TokenSettings().clock_skew_seconds = 5
