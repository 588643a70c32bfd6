"""Packages written from docs/plugins.md alone: built, installed and run outside the tree."""

import hashlib
import json
import sys
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from importlib import import_module
from types import SimpleNamespace

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from authz_server.plugin_api import RefusalError
from authz_server.settings import load_settings
from support.live_server import LiveServer, call_cli
from support.parties import Parties
from support.plugin_examples import example_files, install_examples, path_with, run
from support.secrets_watch import SecretsWatch
from support.settings_file import write_secret, write_settings

GRANT_TYPE = "urn:example:grant-type:one-time-code"
SEED, KEY = "a seed of the second factor", "a key that was agreed upon"
#: The digest of a token of the system that is being replaced, and its members.
DIGEST = hashlib.sha256(b"an old token").hexdigest()
LEGACY = {
    "iss": "https://old.example",
    "sub": "old-payer",
    "aud": "https://mapper.example",
    "exp": 4_102_444_800,
    "scope": "mapper/link mapper/resolve disburse/pay",
}
ENDPOINTS = ("token", "client/token", "introspect", "revoke")
LONGEST_EXAMPLE = 100


class Site:
    """A server with the examples, and the parties that use it."""

    def __init__(self, folder, target) -> None:
        self.folder, self.path = folder, path_with(target)
        for name, secret in (("seed", SEED), ("key", KEY)):
            write_secret(folder / name, secret)
        (folder / "legacy.json").write_text(json.dumps({DIGEST: LEGACY}))
        self.config = self.write()
        self.watch = SecretsWatch()

    def write(self, **overrides):
        """Write the settings file."""
        settings = {
            "one_time_code": {"seeds": {"payer": {"file": "seed"}}},
            "api_key": {"keys": {"payer-by-key": {"file": "key"}}},
            "greeting": {"words": "Good morning"},
            "office_hours": {
                "opens": 0,
                "closes": 24,
                "branches": {"payer": "north"},
            },
            "legacy_tokens": {"tokens": str(self.folder / "legacy.json")},
        }
        plugins = {"enabled": list(settings), "settings": settings}
        rings = {"es256": {"backend": f"pem://{self.folder}/keys"}}
        overrides |= {"plugins": plugins, "keys": {"rings": rings}}
        return write_settings(self.folder, f"sqlite:///{self.folder}/server.db", overrides)

    def command(self, *arguments: str) -> str:
        """Run `authz-server`, which has to succeed; return what it prints."""
        done = call_cli(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def prepare(self) -> None:
        """Make database, keys and parties."""
        self.command("db", "upgrade", "--config", str(self.config))
        parties = Parties(load_settings(self.config), self.watch)
        parties.create_first_keys()
        self.mapper = parties.make_resource_server("mapper")
        self.ordinary = parties.make_client("ordinary")
        create = ["client", "create", "--scope", "mapper/link", "--config", str(self.config)]
        made = self.command(*create, "--json", "--name=P", "--grant-type", GRANT_TYPE, "payer")
        self.secret = json.loads(made)["secret"]
        method = ["--authentication-method", "x_api_key"]
        keyed = self.command(*create, "--json", "--name=K", *method, "payer-by-key")
        # A secret would authenticate no client of this method.
        assert "secret" not in json.loads(keyed)

    def post(self, endpoint, form, headers=None):
        """Send a form to an endpoint."""
        return self.client.post(f"/oauth2/{endpoint}", data=form, headers=headers)

    def ask_by_code(self, code, **changed):
        """Ask for a token by the grant."""
        form = {
            "grant_type": GRANT_TYPE,
            "code": code,
            "client_id": "payer",
            "client_secret": self.secret,
            "scope": "mapper/link",
        }
        return self.post("token", form | changed)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return install_examples(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def site(installed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    sys.path.insert(0, str(installed))
    try:
        site = Site(folder, installed)
        site.prepare()
        prefix = ("env", f"PYTHONPATH={site.path}")
        with (
            LiveServer(site.write, folder, prefix=prefix) as server,
            httpx.Client(base_url=server.base_url) as client,
        ):
            site.server, site.client = server, client
            yield site
    finally:
        sys.path.remove(str(installed))


def code_of(moment=None):
    example = import_module("one_time_code")
    step = int(moment or time.time()) // example.STEP_SECONDS
    return example.make_code(SEED.encode(), step)


@pytest.mark.parametrize("name", [name for name in example_files() if name.endswith(".py")])
def test_each_example_has_less_than_a_hundred_lines(name):
    assert example_files()[name].count("\n") < LONGEST_EXAMPLE


def test_the_examples_are_a_package_of_each_kind():
    projects = [name for name in example_files() if name.endswith("pyproject.toml")]
    assert projects == [
        f"{project}/pyproject.toml"
        for project in (
            "office-hours",
            "one-time-code",
            "pem-folder",
            "api-key",
            "legacy-tokens",
            "greeting",
        )
    ]


def test_the_contract_suites_pass_on_the_examples(installed):
    suites = [str(installed.parent / name) for name in example_files() if "/test_" in name]
    printed = run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", *suites, path=path_with(installed)
    )
    assert "passed" in printed
    assert len(suites) == 5


def test_a_token_by_the_grant_is_signed_by_the_key_backend(site):
    answer = site.ask_by_code(code_of())
    assert answer.status_code == 200, answer.text
    assert answer.json()["expires_in"] == 120

    token = answer.json()["access_token"]
    keys = site.client.get("/.well-known/jwks.json").json()["keys"]
    (jwk,) = (each for each in keys if each["kid"] == jwt.get_unverified_header(token)["kid"])
    claims = jwt.decode(token, jwt.PyJWK(jwk).key, ["ES256"], audience="https://mapper.example")
    assert (claims["sub"], claims["scope"]) == ("payer", "mapper/link")
    assert claims["branch"] == "north", "a claim of office_hours"
    held = load_pem_private_key((site.folder / "keys/es256/1.pem").read_bytes(), None)
    assert jwt.PyJWK(jwk).key.public_numbers() == held.public_key().public_numbers()


def test_the_grant_and_the_method_are_in_the_metadata_and_the_description(site):
    metadata = site.client.get("/.well-known/oauth-authorization-server").json()
    assert {"client_credentials", GRANT_TYPE} <= set(metadata["grant_types_supported"])
    methods = metadata["token_endpoint_auth_methods_supported"]
    assert {"client_secret_basic", "private_key_jwt", "x_api_key"} <= set(methods)
    for endpoint in ("token", "introspection", "revocation"):
        assert metadata[f"{endpoint}_endpoint_auth_methods_supported"] == methods
    schemas = httpx.get(f"{site.server.health_url}/openapi.json").json()["components"]["schemas"]
    grant_type = schemas["TokenRequest"]["properties"]["grant_type"]
    assert grant_type["enum"] == metadata["grant_types_supported"]
    members = schemas["Metadata"]["properties"]
    assert members["token_endpoint_auth_methods_supported"] == {"const": methods}


def test_a_token_is_refused_while_the_office_is_closed(site):
    module = import_module("office_hours")
    plugin = module.OfficeHours()
    services = SimpleNamespace(now=lambda: datetime(2030, 1, 1, 16, 59, tzinfo=UTC))
    plugin.start({"opens": 8, "closes": 17}, services)
    narrowed = plugin.decide_token(SimpleNamespace(lifetime_seconds=900))
    assert narrowed.lifetime_seconds == 60
    services.now = lambda: datetime(2030, 1, 1, 17, 0, tzinfo=UTC)
    with pytest.raises(RefusalError, match="outside office hours"):
        plugin.decide_token(SimpleNamespace(lifetime_seconds=900))
    assert site.client


def test_a_token_of_another_system_is_described_by_a_source(site):
    form = {"token": "an old token", "client_id": "mapper", "client_secret": site.mapper.secret}
    headers = {}
    if site.mapper.method == "client_secret_basic":
        form, headers = {"token": "an old token"}, site.mapper.headers()
    answer = site.post("introspect", form, headers).json()
    assert (answer["active"], answer["iss"]) == (True, "https://old.example")
    assert answer["scope"] == "mapper/link mapper/resolve", "those that belong to the mapper"


def test_the_installed_plugins_are_listed_with_their_hooks(site):
    listed = json.loads(site.command("plugin", "list", "--json", "--config", str(site.config)))
    by_name = {each["name"]: each for each in listed}
    assert by_name["one_time_code"] == {
        "name": "one_time_code",
        "distribution": "authz-one-time-code",
        "version": "1.0",
        "hooks": ["start", "register_grants"],
        "enabled": True,
        "settings": {"seeds": {"payer": "(secret)"}},
        "problem": "",
    }
    assert by_name["office_hours"]["hooks"] == ["start", "decide_token", "token_claims"]
    policy = by_name["policy"]
    assert (policy["distribution"], policy["enabled"]) == ("authz-server", False)
    assert policy["hooks"] == ["start", "register_commands", "decide_token"]
    assert SEED not in site.command("plugin", "list", "--config", str(site.config))


def test_a_grant_refuses_and_is_refused_as_rfc_6749_says(site):
    old = code_of(datetime(2020, 1, 1, tzinfo=UTC).timestamp())
    for changed, status, error in (
        ({"code": old}, 400, "invalid_grant"),
        ({"code": ""}, 400, "invalid_grant"),
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        (
            {"client_id": "ordinary", "client_secret": site.ordinary.secret},
            400,
            "unauthorized_client",
        ),
    ):
        answer = site.ask_by_code(**{"code": old} | changed)
        assert (answer.status_code, answer.json()["error"]) == (status, error), changed


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_client_authenticates_by_the_method_at_each_endpoint(site, endpoint):
    form = {"client_id": "payer-by-key", "token": "x", "scope": "mapper/link"}
    form |= {"grant_type": "client_credentials"} if endpoint.endswith("token") else {}
    sent = {"timestamp": format_datetime(datetime.now(UTC), usegmt=True)}
    assert site.post(endpoint, form, sent | {"X-Api-Key": KEY}).status_code == 200
    for key, claimed in ((KEY, "payer"), ("wrong", "payer-by-key"), (KEY, "no-such-client")):
        answer = site.post(endpoint, form | {"client_id": claimed}, sent | {"X-Api-Key": key})
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_a_token_s_record_names_the_plugin_s_method(site):
    form = {"client_id": "payer-by-key", "grant_type": "client_credentials", "scope": "mapper/link"}
    assert site.post("token", form, {"X-Api-Key": KEY}).status_code == 200
    records = map(json.loads, (site.folder / "audit.jsonl").read_text().splitlines())
    issued = [each for each in records if each["event"] == "token.issued"]
    assert issued[-1]["authentication_method"] == "x_api_key"


def test_a_secret_and_a_key_in_one_request_are_refused(site):
    form = {"client_id": "payer", "client_secret": site.secret, "token": "x"}
    answer = site.post("introspect", form, {"X-Api-Key": KEY})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_a_command_of_a_plugin_runs_and_is_listed(site):
    config = str(site.config)
    assert site.command("greet", "payer", "--config", config) == "Good morning, payer!\n"
    assert site.command("--config", config, "greet", "payer") == "Good morning, payer!\n"
    listed = site.command("--config", config, "--help").partition("Commands of plugins:")[2]
    assert listed.split() == ["greet", "Greet", "a", "client."]
    assert "--config" in site.command("--config", config, "greet", "--help")
