"""`resource-server show NAME --snippet KIND`: settings for software that checks tokens."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from authz_server.operations.snippets import KINDS, LISTED_AUDIENCES, SIGNATURES_ALONE
from support.not_run import skip_as_not_run
from support.settings_file import ISSUER, write_settings

PYTHON_KINDS = ("django", "fastapi", "flask")


@pytest.fixture
def cli(make_cli, sqlite_url, tmp_path):
    """The command line on SQLite: what is printed here comes from no database's dialect."""
    rings = {"rs256": {"algorithm": "RS256"}}
    return make_cli(tmp_path, sqlite_url, keys={"rings": rings})


@pytest.fixture
def mapper(cli, prepare):
    """The command line on a resource server `mapper` with two scopes and a secret."""
    create = (
        *("resource-server", "create", "mapper", "--name", "Mapper", "--json"),
        *("--identifier", "https://mapper.example/v1"),
        *("--scope", "mapper/link", "--scope", "mapper/resolve"),
    )
    _, created = prepare(cli, ("scope", "import", "g2p-connect"), create)
    cli.secret = json.loads(created)["secret"]
    return cli


def snippet(cli, kind):
    return cli.must("resource-server", "show", "mapper", "--snippet", kind)


def update(cli, *options):
    cli.must("resource-server", "update", "mapper", *options)


def test_each_kind_is_filled_in_and_holds_no_secret(mapper):
    for token_format, kinds in (("jwt", KINDS), ("reference", {*KINDS} - SIGNATURES_ALONE)):
        update(mapper, "--token-format", token_format)
        for kind in kinds:
            text = snippet(mapper, kind)
            assert re.findall(r"@[a-z_]+@", text) == [], kind
            assert mapper.secret not in text
            assert text.endswith("\n")
            assert ISSUER in text
            assert "mapper" in text


def test_the_help_names_each_kind(stocked):
    # Lines are broken at hyphens, too.
    text = "".join(stocked.must("resource-server", "show", "--help").split())
    assert f"for{','.join(KINDS)}." in text
    wanted = (
        "apache django django-oauth-toolkit dotnet dovecot envoy fastapi flask haproxy kafka "
        "keystonemiddleware mod_auth_openidc nginx njs node spring"
    )
    assert " ".join(KINDS) == wanted


def test_a_snippet_is_not_json_and_needs_a_kind_that_exists(mapper):
    show = ("resource-server", "show", "mapper", "--snippet")
    assert "no JSON" in mapper.refused(*show, "flask", "--json")
    assert "'cobol' is not one of" in mapper.refused(*show, "cobol")
    assert "other" in mapper.refused("resource-server", "show", "other", "--snippet", "flask")


@pytest.mark.parametrize("kind", PYTHON_KINDS)
def test_python_compiles(mapper, kind):
    text = snippet(mapper, kind)
    compile(text, kind, "exec")
    assert 'AUDIENCE = "https://mapper.example/v1"' in text
    assert '/oauth2/introspect"' in text


def test_spring_reads_its_yaml(mapper):
    settings = yaml.safe_load(snippet(mapper, "spring"))
    assert settings["spring"]["security"]["oauth2"]["resourceserver"] == {
        "jwt": {
            "issuer-uri": ISSUER,
            "jwk-set-uri": f"{ISSUER}/.well-known/jwks.json",
            "audiences": "https://mapper.example/v1",
            "jws-algorithms": "ES256",
        }
    }
    update(mapper, "--token-format", "reference")
    settings = yaml.safe_load(snippet(mapper, "spring"))
    assert settings["spring"]["security"]["oauth2"]["resourceserver"] == {
        "opaquetoken": {
            "introspection-uri": f"{ISSUER}/oauth2/introspect",
            "client-id": "mapper",
            "client-secret": "${AUTHZ_SECRET}",
        }
    }


def test_envoy_reads_its_yaml(mapper):
    resources = yaml.safe_load(snippet(mapper, "envoy"))["static_resources"]
    (listener,) = resources["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    jwt, rbac, router = manager["http_filters"]
    provider = jwt["typed_config"]["providers"]["authz_server"]
    assert provider["issuer"] == ISSUER
    assert provider["audiences"] == ["https://mapper.example/v1"]
    assert provider["remote_jwks"]["cache_duration"] == "10s"
    assert list(rbac["typed_config"]["rules"]["policies"]) == ["mapper/link"]
    assert router["name"].endswith("router")
    named = {cluster["name"] for cluster in resources["clusters"]}
    assert provider["remote_jwks"]["http_uri"]["cluster"] in named


def test_node_parses_its_program(mapper, tmp_path):
    program = tmp_path / "server.js"
    program.write_text(snippet(mapper, "node"))
    if shutil.which("node") is None:
        skip_as_not_run("the settings for Express", "node")
    parsed = subprocess.run(["node", "--check", program], capture_output=True, check=False)
    assert parsed.returncode == 0, parsed.stderr


@pytest.mark.parametrize(("token_type", "strict"), [("at+jwt", "true"), ("JWT", "false")])
def test_the_type_and_the_ring_of_the_registration_are_written(mapper, token_type, strict):
    update(mapper, "--token-type", token_type, "--signing-ring", "rs256")
    assert f"strict: {strict}," in snippet(mapper, "node")
    assert f'ValidTypes = ["{token_type}"]' in snippet(mapper, "dotnet")
    for kind in ("node", "dotnet", "haproxy", "spring"):
        assert '"RS256"' in snippet(mapper, kind)


def test_aspnet_core_refuses_bound_tokens_by_authentication(mapper):
    """Where a path names no policy too: the program refuses them before it authorises."""
    authentication, authorisation = snippet(mapper, "dotnet").split("AddAuthorization(")
    event = authentication.split("OnTokenValidated = context =>")[1]
    assert re.search(r'claim\.Type == "cnf"\) == true\)\s+context\.Fail\(', event)
    assert "cnf" not in authorisation


@pytest.mark.parametrize("kind", sorted(SIGNATURES_ALONE))
def test_what_checks_signatures_alone_refuses_reference_tokens(mapper, kind):
    update(mapper, "--token-format", "reference")
    sentence = mapper.refused("resource-server", "show", "mapper", "--snippet", kind)
    assert "update mapper --token-format jwt" in sentence


@pytest.mark.parametrize(
    "kind", ["apache", "django", "dovecot", "fastapi", "flask", "mod_auth_openidc", "nginx"]
)
def test_what_asks_by_basic_refuses_a_registration_for_the_form(mapper, kind):
    update(mapper, "--authentication-method", "client_secret_post")
    sentence = mapper.refused("resource-server", "show", "mapper", "--snippet", kind)
    assert "update mapper --authentication-method client_secret" in sentence
    update(mapper, "--authentication-method", "client_secret_basic")
    snippet(mapper, kind)


def test_introspection_that_is_switched_off_is_named(mapper, tmp_path):
    off = {"introspection": {"enabled": False}, "revocation": {"enabled": False}}
    mapper.config = write_settings(tmp_path, mapper.database_url, off)
    show = ("resource-server", "show", "mapper", "--snippet")
    assert "introspection.enabled" in mapper.refused(*show, "flask")
    assert ISSUER in snippet(mapper, "node")


def test_a_resource_server_without_scopes_is_refused(mapper):
    mapper.must("scope", "assign", "mapper/link", "--none")
    mapper.must("scope", "assign", "mapper/resolve", "--none")
    sentence = mapper.refused("resource-server", "show", "mapper", "--snippet", "flask")
    assert "scope assign SCOPE --resource-server mapper" in sentence


def test_a_ring_that_the_settings_lost_is_named(mapper, tmp_path):
    update(mapper, "--signing-ring", "rs256")
    mapper.config = write_settings(tmp_path, mapper.database_url, {})
    sentence = mapper.refused("resource-server", "show", "mapper", "--snippet", "node")
    assert "the key ring rs256" in sentence


def test_an_identifier_that_files_would_change_is_refused(mapper):
    update(mapper, "--identifier", "https://mapper.example/$v1")
    sentence = mapper.refused("resource-server", "show", "mapper", "--snippet", "nginx")
    assert "contains $" in sentence


@pytest.mark.parametrize("kind", sorted(LISTED_AUDIENCES))
def test_an_identifier_that_would_be_two_audiences_is_refused(mapper, kind):
    """Spring Security refuses every token then."""
    update(mapper, "--identifier", "https://mapper.example/v1,v2")
    assert "comma" in mapper.refused("resource-server", "show", "mapper", "--snippet", kind)
    assert "v1,v2" in mapper.must("resource-server", "show", "mapper", "--snippet", "envoy")


def test_the_file_of_the_secret_is_named_for_the_resource_server(mapper):
    mapper.must(
        *("resource-server", "create", "org/map@v1", "--name", "Map", "--no-secret"),
        *("--identifier", "https://map.example", "--scope", "mapper/unlink"),
    )
    text = mapper.must("resource-server", "show", "org/map@v1", "--snippet", "flask")
    assert 'Path("/etc/authz/org-map-v1.secret")' in text
    assert 'quote_plus("org/map@v1")' in text
    text = mapper.must("resource-server", "show", "org/map@v1", "--snippet", "dovecot")
    assert "://org%252Fmap%2540v1:SECRET@" in text


@pytest.mark.parametrize("kind", ["django-oauth-toolkit", "keystonemiddleware"])
def test_software_that_encodes_nothing_gets_an_encoded_id(mapper, kind):
    """In a Basic header, a colon ends the id (RFC 7617, 2)."""
    mapper.must(
        *("resource-server", "create", "urn:map@v1", "--name", "Map", "--no-secret"),
        *("--identifier", "https://map.example", "--scope", "mapper/resolve", "--take-over"),
    )
    assert "urn%3Amap%40v1" in mapper.must(
        "resource-server", "show", "urn:map@v1", "--snippet", kind
    )


def test_the_dot_of_a_scope_stands_for_itself_in_patterns(mapper):
    mapper.must("scope", "add", "map.v1/link")
    mapper.must(
        *("resource-server", "create", "map", "--name", "Map", "--no-secret"),
        *("--identifier", "https://map.example", "--scope", "map.v1/link"),
    )
    for kind in ("envoy", "haproxy", "mod_auth_openidc"):
        text = mapper.must("resource-server", "show", "map", "--snippet", kind)
        assert "( |$)" in text or "( .*)?" in text
        assert "map[.]v1/link" in text
