import json
import tomllib
from base64 import b64encode
from functools import partial

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding

from authz_server.cli.root import main
from support.client_certificates import make_certificate, self_signed

#: A client as Keycloak 26 exports it, with the members that every client has.
KEYCLOAK_CLIENT = {
    "id": "8b1f7a1e-6a4b-4c58-9f5a-0a8d6e6f3c11",
    "clientId": "ministry",
    "name": "وزارة",
    "description": "",
    "rootUrl": "",
    "surrogateAuthRequired": False,
    "enabled": True,
    "alwaysDisplayInConsole": False,
    "clientAuthenticatorType": "client-secret",
    "secret": "the secret of the realm",
    "redirectUris": ["/*"],
    "webOrigins": ["/*"],
    "notBefore": 0,
    "bearerOnly": False,
    "consentRequired": False,
    "standardFlowEnabled": True,
    "implicitFlowEnabled": False,
    "directAccessGrantsEnabled": False,
    "serviceAccountsEnabled": True,
    "publicClient": False,
    "frontchannelLogout": True,
    "protocol": "openid-connect",
    "attributes": {
        "access.token.lifespan": "300",
        "client.secret.creation.time": "1700000000",
        "oauth2.device.authorization.grant.enabled": "false",
        "backchannel.logout.session.required": "true",
    },
    "authenticationFlowBindingOverrides": {},
    "fullScopeAllowed": True,
    "nodeReRegistrationTimeout": -1,
    "protocolMappers": [
        {
            "name": "tenant",
            "protocol": "openid-connect",
            "protocolMapper": "oidc-hardcoded-claim-mapper",
            "config": {"claim.name": "tenant", "claim.value": "1"},
        }
    ],
    "defaultClientScopes": ["web-origins", "acr", "roles", "land/read", "disburse.search"],
    "optionalClientScopes": ["mapper/link", "offline_access", "two words"],
}
KEYED = {
    "clientId": "keyed",
    "enabled": False,
    "serviceAccountsEnabled": True,
    "clientAuthenticatorType": "client-jwt",
    "attributes": {
        "use.jwks.url": "true",
        "jwks.url": "https://keyed.example/jwks",
        "token.endpoint.auth.signing.alg": "ES256",
        "dpop.bound.access.tokens": "true",
    },
}
CERTIFIED = {
    "clientId": "certified",
    "serviceAccountsEnabled": True,
    "clientAuthenticatorType": "client-x509",
    "attributes": {"x509.subjectdn": "CN=certified", "odd": ["a list"], "none": None},
}
REALM = {
    "realm": "g2p",
    "enabled": True,
    "clientScopes": [
        {
            "name": "land/read",
            "description": "Read parcels.",
            "protocol": "openid-connect",
            "attributes": {"include.in.token.scope": "true"},
            "protocolMappers": [{"name": "aud", "protocolMapper": "oidc-audience-mapper"}],
        },
        {"name": "role_list", "protocol": "saml"},
    ],
    "clients": [
        {"clientId": "account", "publicClient": True},
        {"clientId": "realm-management", "bearerOnly": True},
        KEYCLOAK_CLIENT,
        KEYED,
        CERTIFIED,
        {"clientId": "spa", "publicClient": True},
        {"clientId": "api", "bearerOnly": True},
        {"clientId": "people", "serviceAccountsEnabled": False},
        {"clientId": "portal", "protocol": "saml"},
        {"clientId": "a b", "serviceAccountsEnabled": True},
        {"clientId": "odd", "serviceAccountsEnabled": True, "clientAuthenticatorType": "x"},
        {"clientId": "ministry", "serviceAccountsEnabled": True},
    ],
    "users": [
        {"username": "ada", "realmRoles": ["payer"]},
        {
            "username": "service-account-ministry",
            "serviceAccountClientId": "ministry",
            "realmRoles": ["default-roles-g2p", "offline_access", "payer"],
            "clientRoles": {"api": ["reader"], "account": ["view-profile"]},
        },
    ],
}


def run(*arguments):
    """Run an import; its result."""
    return CliRunner().invoke(main, ["import", *map(str, arguments)])


@pytest.fixture
def realm(tmp_path):
    """The export of a realm."""
    path = tmp_path / "realm.json"
    path.write_text(json.dumps(REALM))
    return path


def test_the_clients_of_a_realm_become_a_file(realm):
    """Confidential clients with a service account and the scopes that they have carry over."""
    made = tomllib.loads(run("keycloak", realm).stdout)
    assert made["catalogues"] == ["g2p-connect"]
    assert made["scopes"] == {"land/read": {"description": "Read parcels."}}
    assert made["clients"] == {
        "ministry": {
            "name": "وزارة",
            "authentication_method": "client_secret",
            "allowed_scopes": ["disburse/search", "land/read", "mapper/link"],
            "default_scopes": ["disburse/search", "land/read"],
            "token_lifetime_seconds": 300,
        },
        "keyed": {
            "name": "keyed",
            "enabled": False,
            "authentication_method": "private_key_jwt",
            "allowed_scopes": [],
            "properties": {
                "jwks_uri": "https://keyed.example/jwks",
                "token_endpoint_auth_signing_alg": "ES256",
                "dpop_bound_access_tokens": True,
            },
        },
        "certified": {
            "name": "certified",
            "authentication_method": "tls_client_auth",
            "allowed_scopes": [],
            "properties": {"tls_client_auth_subject_dn": "CN=certified"},
        },
    }


def test_the_report_names_what_does_not_carry_over(realm):
    """Each client that is left out, and each member without a counterpart."""
    report = run("keycloak", realm).stderr
    for line in (
        "ministry: the authorization code flow does not carry over",
        "ministry: 1 redirect URIs do not carry over",
        "ministry: 1 web origins do not carry over",
        "ministry: the mapper 'tenant' does not carry over",
        "ministry: attributes do not carry over: backchannel.logout.session.required",
        "ministry: a scope is left out: scope: 'two words'",
        "land/read: the audience mapper 'aud' does not carry over",
        "land/read: Keycloak has no risk of a scope",
        "certified: the subject of its certificate may be a regular expression",
        "certified: attributes do not carry over: odd",
        "ministry: the roles of its service account do not carry over: api/reader, payer",
        "spa: left out: it is public",
        "api: left out: it only verifies tokens",
        "people: left out: it has no service account",
        "portal: left out: it is a client of saml",
        "a b: left out: id: use 3 to 128 characters",
        "odd: left out: it authenticates by 'x'",
        "ministry: left out: the id 'ministry' occurs twice",
        "1 secret is left out",
    ):
        assert line in report, line
    assert "the secret of the realm" not in report
    assert "account" not in report.replace("service account", "")


def test_secrets_of_a_realm_are_written_to_files_and_imported(stocked, realm, tmp_path):
    """The result is applied; the client keeps the secret that it has in Keycloak."""
    made, folder = tmp_path / "made.toml", tmp_path / "secrets"
    # The settings of the tests have no client certificates.
    realm.write_text(json.dumps(REALM | {"clients": [KEYCLOAK_CLIENT, KEYED]}))
    written = run("keycloak", realm, "--output", made, "--secret-directory", folder)
    assert written.stdout == ""
    assert f"1 secret is written to {folder}." in written.stderr
    assert "2 clients and 1 scope are in the file; " in written.stderr
    assert (folder / "ministry").read_text() == "the secret of the realm\n"
    assert (folder / "ministry").stat().st_mode & 0o777 == 0o600
    stocked.must("apply", made, "--yes", "--imported-secrets", folder)
    (secret,) = stocked.json("client", "secret", "list", "ministry")
    assert secret["imported"]
    assert stocked.json("apply", made, "--yes")["changes"] == []
    assert run("keycloak", realm, "--secret-directory", folder).exit_code == 1


def test_masked_secrets_and_key_sets_as_text(tmp_path):
    """An export of the console has asterisks; a key set that is no JSON is reported."""
    attributes = {"use.jwks.string": "true", "jwks.string": "{"}
    keys = {"keys": [self_signed().jwk(with_certificate=False)]}
    clients = [
        KEYCLOAK_CLIENT | {"secret": "**********"},
        KEYED | {"attributes": attributes},
        KEYED | {"clientId": "other", "attributes": {"use.jwks.string": "true"}},
        KEYED | {"clientId": "text", "attributes": attributes | {"jwks.string": json.dumps(keys)}},
        KEYED | {"clientId": "empty", "attributes": attributes | {"jwks.string": '{"keys": []}'}},
        KEYED | {"clientId": "shared", "clientAuthenticatorType": "client-secret-jwt"},
    ]
    (tmp_path / "realm.json").write_text(json.dumps({"clients": clients}))
    result = run("keycloak", tmp_path / "realm.json")
    assert "ministry: its secret is not in the export: it gets a new one" in result.stderr
    assert "keyed: its jwks.string is not JSON" in result.stderr
    assert "other: its key is not in the export" in result.stderr
    assert "shared: a secret that signs assertions cannot be imported" in result.stderr
    assert "empty: its jwks.string does not carry over: jwks: the JWK set holds no" in result.stderr
    made = tomllib.loads(result.stdout)["clients"]
    assert made["text"]["properties"]["jwks"] == keys
    assert "properties" not in made["empty"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "it is not a realm of Keycloak"),
        ('{"clients": 5}', "it is not a realm of Keycloak"),
        ('{"clients": [{"clientId": 5}]}', "`$.clients[0].clientId`"),
        ('{"realm": "g2p"}', "missing required field `clients`"),
        ("[" * 1_000_000, "nested too deeply"),
        ("{", "realm.json:1: it is not JSON"),
    ],
)
def test_a_file_that_is_no_realm_is_refused(tmp_path, text, message):
    """One sentence, and nothing on standard output."""
    (tmp_path / "realm.json").write_text(text)
    result = run("keycloak", tmp_path / "realm.json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert "Something unexpected" not in result.stderr


@pytest.mark.parametrize("lifespan", ["-1", ["300"], "5 minutes", "0", "3601", "86400"])
def test_a_lifetime_that_is_lost_is_reported(tmp_path, lifespan):
    """The operator learns that its tokens now live as long as the others."""
    client = KEYCLOAK_CLIENT | {"attributes": {"access.token.lifespan": lifespan}}
    (tmp_path / "realm.json").write_text(json.dumps({"clients": [client]}))
    result = run("keycloak", tmp_path / "realm.json")
    assert "ministry: its lifetime of tokens does not carry over" in result.stderr
    assert "token_lifetime_seconds" not in result.stdout


def test_one_client_of_the_console_of_keycloak_becomes_a_file(stocked, tmp_path):
    """Its export is not that of a realm, and members without a value are null there."""
    absent = ("fullScopeAllowed", "bearerOnly", "implicitFlowEnabled")
    client = KEYCLOAK_CLIENT | dict.fromkeys(absent) | {"optionalClientScopes": []}
    (tmp_path / "client.json").write_text(json.dumps(client))
    result = run("keycloak", tmp_path / "client.json", "--output", tmp_path / "made.toml")
    assert result.exit_code == 0, result.output
    stocked.must("apply", tmp_path / "made.toml", "--yes", "--secret-directory", tmp_path)
    assert stocked.json("client", "show", "ministry")["token_lifetime_seconds"] == 300
    (tmp_path / "all.json").write_text(json.dumps([{"clients": [client]}]))
    refused = run("keycloak", tmp_path / "all.json")
    assert "as of several realms" in refused.stderr


def test_the_certificate_of_a_client_gives_its_key(tmp_path):
    """As Keycloak keeps it; another text is reported."""
    held = self_signed()
    text = b64encode(held.der).decode()
    clients = [
        KEYED | {"clientId": name, "attributes": {"jwt.credential.certificate": value}}
        for name, value in (("certified", text), ("folded", text[:64] + "\n" + text[64:]))
    ]
    clients.append(KEYED | {"clientId": "odd", "attributes": {"jwt.credential.certificate": "x"}})
    (tmp_path / "realm.json").write_text(json.dumps({"clients": clients}))
    result = run("keycloak", tmp_path / "realm.json")
    made = tomllib.loads(result.stdout)["clients"]
    key = held.jwk(with_certificate=False)
    for name in ("certified", "folded"):
        assert made[name]["properties"]["jwks"] == {"keys": [key]}
        assert f"{name}: attributes" not in result.stderr
    assert "odd: its certificate cannot be read" in result.stderr


_OTHER_KEYS = {
    "dsa": partial(dsa.generate_private_key, 1024),
    "ed448": ed448.Ed448PrivateKey.generate,
    "x25519": x25519.X25519PrivateKey.generate,
    "rsa-1024": partial(rsa.generate_private_key, 65537, 1024),
    "secp256k1": partial(ec.generate_private_key, ec.SECP256K1()),
}


@pytest.mark.parametrize(
    ("authenticator", "alg"),
    [
        ("client-jwt", "RS256"),
        ("client-jwt", "HS256"),
        ("client-secret-jwt", "ES256"),
        ("client-jwt", "ES256K"),
    ],
)
def test_an_algorithm_that_apply_refuses_is_reported(tmp_path, authenticator: str, alg: str):
    """The client carries over without it, and the key with which it signs."""
    keys = {"keys": [self_signed().jwk(with_certificate=False)]}
    attributes = {
        "use.jwks.string": "true",
        "jwks.string": json.dumps(keys),
        "token.endpoint.auth.signing.alg": alg,
    }
    client = KEYED | {"clientAuthenticatorType": authenticator, "attributes": attributes}
    (tmp_path / "realm.json").write_text(json.dumps({"clients": [client]}))
    result = run("keycloak", tmp_path / "realm.json")
    assert "keyed: its algorithm does not carry over: " in result.stderr
    assert tomllib.loads(result.stdout)["clients"]["keyed"]["properties"] == {"jwks": keys}


def test_the_certificate_of_a_key_that_apply_refuses_is_reported(tmp_path):
    """One such client would refuse the whole file; the other clients carry over."""
    signer = self_signed()
    clients = [KEYCLOAK_CLIENT]
    for name, make in _OTHER_KEYS.items():
        held = make_certificate(f"CN={name}", make(), signer.certificate.subject, signer.key)
        text = b64encode(held.public_bytes(Encoding.DER)).decode()
        clients.append(
            KEYED | {"clientId": name, "attributes": {"jwt.credential.certificate": text}}
        )
    (tmp_path / "realm.json").write_text(json.dumps({"clients": clients}))
    result = run("keycloak", tmp_path / "realm.json")
    assert result.exit_code == 0, result.output
    made = tomllib.loads(result.stdout)["clients"]
    assert made.keys() == {"ministry", *_OTHER_KEYS}
    for name in _OTHER_KEYS:
        assert "properties" not in made[name]
        assert f"{name}: its certificate does not carry over: jwks: a" in result.stderr
