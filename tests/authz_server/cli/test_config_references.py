"""`config check` looks at files, addresses and names that the settings refer to."""

import asyncio
import codecs
import socket
from datetime import timedelta

import pytest
from jwcrypto import jwk, jwt

from authz_server.cli.serve import require_prepared
from authz_server.clients.issuers import Issuer
from authz_server.metrics.definitions import CERTIFICATE_END
from authz_server.metrics.exporter import MetricsPage
from authz_server.operations.own_certificates import find_certificate_ends
from authz_server.settings import load_settings
from keys.jose.foreign import parse_foreign
from keys.memory import MemoryKeyStore
from support.client_certificates import ClientAuthority, self_signed
from support.clock import FakeClock
from support.redis_server import RedisServer
from support.settings_file import write_settings_beside


@pytest.fixture
def settings_at(cli, tmp_path):
    """A function that has the command line use other settings of a database with keys."""
    cli.must("keys", "init")

    def use(name, **overrides):
        cli.config = write_settings_beside(tmp_path, name, cli.database_url, overrides)
        return cli

    return use


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_key_set_of_an_issuer_may_begin_with_a_byte_order_mark(settings_at, tmp_path):
    """Case R243: the check and the server read over it."""
    key = jwk.JWK.generate(kty="EC", crv="P-256", kid="k", use="sig", alg="ES256")
    held = codecs.BOM_UTF8 + f'{{"keys": [{key.export_public()}]}}'.encode()
    (tmp_path / "keys.json").write_bytes(held)
    table = {"issuer": "https://issuer.example", "jwks_file": str(tmp_path / "keys.json")}
    cli = settings_at("other", issuers={"a": table})
    cli.must("config", "check")
    settings = load_settings(cli.config).issuers["a"]
    issuer = Issuer("a", settings, audience="https://a", clock_skew_seconds=0, fetcher=None)
    token = jwt.JWT(header={"alg": "ES256", "kid": "k"}, claims={"sub": "payer"})
    token.make_signed_token(key)
    asyncio.run(issuer.verify(parse_foreign(token.serialize(), 8_000)))


def test_settings_of_a_ring_that_differ_from_its_keys_are_named(settings_at, tmp_path):
    """Case R241: the ring stays as it is stored, and the settings are without effect."""
    key_file = f"file://{tmp_path}/keys.json"
    for name, ring in (
        ("algorithm", {"algorithm": "RS256"}),
        ("backend", {"algorithm": "ES256", "backend": key_file}),
    ):
        cli = settings_at(name, keys={"rings": {"es256": ring}})
        refusal = cli.refused("config", "check")
        assert "keys.rings.es256: it is ES256 at sql://; the settings have " in refusal
        assert "give that ring another name" in refusal


def test_a_redis_that_does_not_count_is_named(settings_at, tmp_path, caplog):
    """Case R241: the server starts, and each of its processes counts for itself."""
    (tmp_path / "redis-url").touch(0o600)
    (tmp_path / "redis-url").write_text(f"unix://secret-word@{tmp_path}/nowhere")
    table = {"throttle": "redis", "redis_url": {"file": str(tmp_path / "redis-url")}}
    cli = settings_at("other", clients=table)
    refusal = cli.refused("config", "check")
    require_prepared(load_settings(cli.config))
    for said in (refusal, caplog.text):
        assert "clients.redis_url: the counts fail (Redis: " in said
        assert "each process counts for itself" in said
        assert "secret-word" not in said
    cli.must("config", "check", "--offline")


def test_a_redis_that_drops_counts_is_named(settings_at, tmp_path):
    with RedisServer() as redis:
        redis.client.config_set("maxmemory", 100_000_000)
        redis.client.config_set("maxmemory-policy", "volatile-lru")
        (tmp_path / "redis-url").touch(0o600)
        (tmp_path / "redis-url").write_text(redis.url)
        table = {"throttle": "redis", "redis_url": {"file": str(tmp_path / "redis-url")}}
        cli = settings_at("other", clients=table)
        refusal = cli.refused("config", "check")
        assert "clients.redis_url: its maxmemory-policy volatile-lru drops counts" in refusal
        assert "Set its maxmemory-policy to noeviction." in refusal
        redis.client.config_set("maxmemory-policy", "noeviction")
        cli.must("config", "check")


def test_a_vault_that_does_not_answer_is_named(settings_at, tmp_path):
    """Case R241: without a login, whose secret may be for one use."""
    (tmp_path / "id").touch(0o600)
    (tmp_path / "id").write_text("secret")
    login = {"method": "approle", "role_id": "r", "secret_id_file": str(tmp_path / "id")}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        addresses = [f"http://127.0.0.1:{port}" for port in (1, listener.getsockname()[1])]
        vaults = {
            "main": {"addresses": addresses, "login": login},
            "away": {"addresses": addresses[:1], "login": login},
            "unused": {"addresses": addresses[:1], "login": login},
        }
        rings = {
            "es256": {"algorithm": "ES256", "backend": "transit://transit/a"},
            "other": {"algorithm": "ES256", "backend": "kv://secret/b?vault=away"},
        }
        cli = settings_at("other", keys={"rings": rings, "vaults": vaults})
        refusal = cli.refused("config", "check")
    assert "keys.vaults.away.addresses: none of them answers (Connection refused)" in refusal
    assert "keys.vaults.main.addresses" not in refusal
    assert "keys.vaults.unused" not in refusal


def test_what_the_settings_name_and_is_not_registered_is_warned_of(settings_at):
    """Case R241: it may be registered while the server runs."""
    mapper = {"enabled": ["claims_mapper"], "settings": {"claims_mapper": {}}}
    mapper["settings"]["claims_mapper"]["clients"] = {"payer": {"a": 1}, "other": {"a": 1}}
    role = {"role": "api-owner", "resource_servers": ["mapper", "other"]}
    cli = settings_at(
        "other",
        plugins=mapper,
        registration={"software_statement_issuers": {"a": ["mapper/link", "no/scope", "no/*"]}},
        issuers={"a": {"issuer": "https://issuer.example"}},
        admin={"openid": {"roles": {"apis": [role]}}},
    )
    cli.must("scope", "import", "g2p-connect")
    new = ("resource-server", "create", "mapper", "--name", "M", "--scope", "mapper/*")
    cli.must(*new, "--identifier", "https://mapper.example", "--signing-ring", "es256")
    cli.must("client", "create", "payer", "--name", "P", "--scope", "mapper/link")
    warned = [(each["key"], each["problem"]) for each in cli.warnings()]
    key = "registration.software_statement_issuers.a"
    assert warned == [
        (key, "There is no scope no/scope."),
        (key, "There is no scope no/*."),
        ("admin.openid.roles.apis", "There is no resource server other."),
        ("plugins.settings.claims_mapper.clients.other", "There is no client other."),
    ]
    rings = {"rings": {"es256": None, "x": {"algorithm": "ES256"}}, "default_ring": "x"}
    refusal = settings_at("rings", keys=rings).refused("config", "check")
    assert "the resource server mapper has its tokens signed by this ring" in refusal


@pytest.mark.parametrize(
    ("days", "problem"),
    [
        ((-9, -1), "the certificate, or one of its chain, has ended on"),
        ((1, 90), "the certificate, or one of its chain, is valid from"),
    ],
)
def test_a_certificate_outside_its_times_is_named(settings_at, tmp_path, caplog, days, problem):
    """`config check` fails, as every client does; `serve` starts and warns."""
    starts, ends = (timedelta(days=each) for each in days)
    path = self_signed(starts=starts, ends=ends).write(tmp_path, "tls")
    listener = {"tls_certificate": str(path), "tls_private_key": str(path)}
    for table, more in (("server", {}), ("admin", {"enabled": True})):
        caplog.clear()
        cli = settings_at(f"other-{table}", **{table: listener | more})
        refusal = cli.refused("config", "check", "--offline")
        require_prepared(load_settings(cli.config))
        for text in (refusal, caplog.text):
            assert f"{table}.tls_certificate: {problem}" in text
            assert "clients refuse it" in text


def test_a_certificate_that_ends_soon_is_warned_of(settings_at, tmp_path, caplog):
    """The chain counts; a certificate of 90 days is not due yet."""
    for days, is_due in ((13, True), (90, False)):
        caplog.clear()
        issued = ClientAuthority().issue("CN=server", ends=timedelta(days=90))
        chain = self_signed(ends=timedelta(days=days)).certificate
        path = issued._replace(issuers=(chain,)).write(tmp_path, f"tls-{days}")
        cli = settings_at(
            f"other-{days}", server={"tls_certificate": str(path), "tls_private_key": str(path)}
        )
        settings = load_settings(cli.config)
        require_prepared(settings)
        warned = [each["key"] for each in cli.warnings()]
        assert ("server.tls_certificate" in warned) == is_due
        assert ("clients refuse it then" in caplog.text) == is_due
        ends = find_certificate_ends(settings)
        assert ends == {"public": chain.not_valid_after_utc.timestamp()} or not is_due
        clock = FakeClock()
        page = MetricsPage(tmp_path, MemoryKeyStore(clock), clock, certificate_ends=ends)
        (shown,) = (each for each in page.collect() if each.name == CERTIFICATE_END.name)
        assert {each.labels["listener"]: each.value for each in shown.samples} == ends


def test_granted_scopes_that_nobody_answers_for_are_named(stocked):
    """Case S266."""
    stocked.must("keys", "init")
    assert stocked.warnings() == []
    create = ("client", "create", "payer", "--name", "Payer", "--scope", "mapper/link")
    stocked.must(*create, "--scope", "mapper/resolve")
    (warning,) = stocked.warnings()
    assert "mapper/link, mapper/resolve" in warning["problem"]
    assert "scope assign" in stocked.run("config", "check", "--json").stderr
    assert stocked.warnings("--offline") == []
    new = ("resource-server", "create", "mapper", "--name", "Mapper", "--scope", "mapper/*")
    stocked.must(*new, "--identifier", "https://mapper.example")
    assert stocked.warnings() == []
