"""FAPI 2.0 Security Profile (final) for the client credentials grant, rule by rule.

Clients authenticate by private_key_jwt or by a certificate, and their tokens are bound by DPoP or
by a certificate: four kinds of client, at a server with the profile `fapi2`.
"""

import json
from functools import cache

import pytest

from support.assertions import Signer, jwks_of, make_signer, new_key
from support.claims import claims_of, header_of
from support.client_certificates import ClientAuthority, header_value
from support.dpop import ProofKey
from support.parties import ACTOR
from support.protocol import ENDPOINTS, TOKEN_ENDPOINTS, require_refusal, running_protocol
from support.settings_file import ISSUER

METADATA = "/.well-known/oauth-authorization-server"
SUBJECT = "CN=payer,O=Ministry of Social Affairs,C=KE"
CERTIFICATE = ClientAuthority().issue(SUBJECT)
OTHER_CERTIFICATE = ClientAuthority().issue("CN=other")
KEY = ProofKey()
MTLS = "https://mtls.authz.example"
CLOUD = "https://cloud.example"
CLOUD_ALGORITHMS = ("RS256", "ES384", "ES256")
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
AUTHENTICATIONS = ("private_key_jwt", "tls_client_auth")
BINDINGS = ("dpop", "certificate")


#: A key of the other issuer, by its algorithm.
cloud_key = cache(new_key)


@pytest.fixture(scope="module")
def fapi(module_database_url, tmp_path_factory):
    """A server with the profile, whose clients were registered before it was enabled."""
    directory = tmp_path_factory.mktemp("fapi")
    published = [
        key for alg in CLOUD_ALGORITHMS for key in jwks_of(cloud_key(alg), kid=alg)["keys"]
    ]
    (directory / "cloud.jwks").write_text(json.dumps({"keys": published}))
    with running_protocol(
        directory,
        module_database_url,
        profiles=["fapi2"],
        issuers={
            "cloud": {
                "issuer": CLOUD,
                "jwks_file": "cloud.jwks",
                "algorithms": list(CLOUD_ALGORITHMS),
            }
        },
        server={"trusted_proxies": ["127.0.0.1"]},
        client_certificates={"source": "nginx", "mtls_base_url": MTLS},
    ) as protocol:
        protocol.signer = make_signer(
            protocol.parties, "jwt-dpop", lambda: protocol.clock().timestamp()
        )
        bound = {"tls_client_certificate_bound_access_tokens": True}
        keys = {"jwks": jwks_of(protocol.signer.key, kid="key-1")}
        name = {"tls_client_auth_subject_dn": SUBJECT}
        for client_id, method, properties in (
            ("jwt-certificate", "private_key_jwt", keys | bound),
            ("tls-dpop", "tls_client_auth", name | {"dpop_bound_access_tokens": True}),
            ("tls-certificate", "tls_client_auth", name | bound),
            ("tls-unnamed", "tls_client_auth", name),
            ("jwt-bound", "private_key_jwt", keys | {"dpop_bound_access_tokens": True}),
        ):
            protocol.parties.make_client(client_id, method, properties=properties)
        with protocol.parties.change() as (services, session):
            services.clients.update_resource_server(
                session,
                "mapper",
                actor=ACTOR,
                authentication_method="private_key_jwt",
                properties=keys,
            )
            services.clients.update_client(
                session,
                "jwt-dpop",
                actor=ACTOR,
                grant_types=["client_credentials", JWT_BEARER, TOKEN_EXCHANGE],
                properties={
                    "jwt_bearer_subjects": [{"issuer": "cloud", "subject": "officer"}],
                    "token_exchange": {"issuers": {"cloud": ["*"]}, "audiences": ["mapper"]},
                },
            )
        yield protocol


@pytest.fixture(params=AUTHENTICATIONS)
def authentication(request) -> str:
    return request.param


@pytest.fixture(params=BINDINGS)
def binding(request) -> str:
    return request.param


def signer_of(fapi, client_id: str) -> Signer:
    return Signer(client_id, fapi.signer.key, fapi.signer.now, kid="key-1")


def credentials(fapi, authentication: str, binding: str, **claims) -> tuple[dict, dict]:
    """Return the form fields and headers that authenticate a client of this kind."""
    if authentication == "private_key_jwt":
        signer = signer_of(fapi, f"jwt-{binding}")
        return signer.form(signer.assertion(**claims)), {}
    return {"client_id": f"tls-{binding}"}, header_value("nginx", CERTIFICATE.der)


def proof(fapi, endpoint: str, binding: str) -> dict:
    """Return the headers that bind a token."""
    if binding == "dpop":
        return {"DPoP": KEY.prove(fapi.clock().timestamp(), ENDPOINTS[endpoint])}
    return header_value("nginx", CERTIFICATE.der)


def ask(fapi, endpoint: str, authentication: str, binding: str, **fields):
    form, headers = credentials(fapi, authentication, binding)
    headers |= proof(fapi, endpoint, binding) if endpoint in TOKEN_ENDPOINTS else {}
    return fapi.post(endpoint, fapi.form(endpoint) | form | fields, headers)


def introspect(fapi, token: str) -> dict:
    form = signer_of(fapi, "mapper").form() | {"token": token}
    answer = fapi.post("introspect", form)
    assert answer.status_code == 200, answer.text
    return answer.json


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_every_token_is_bound_to_a_key_of_its_client(fapi, endpoint, authentication, binding):
    """5.3.2.1: only sender-constrained access tokens, by DPoP or mutual TLS."""
    answer = ask(fapi, endpoint, authentication, binding)
    assert answer.status_code == 200, answer.text
    confirmation = claims_of(answer.json["access_token"])["cnf"]
    assert list(confirmation) == ["jkt" if binding == "dpop" else "x5t#S256"]
    shown = introspect(fapi, answer.json["access_token"])
    assert (shown["active"], shown["cnf"]) == (True, confirmation)
    if binding == "dpop":
        assert confirmation["jkt"] == KEY.thumbprint
        assert answer.json["token_type"].lower() == "dpop"


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
@pytest.mark.parametrize("client_id", ["jwt-dpop", "jwt-bound", "jwt-certificate"])
def test_a_request_without_its_binding_gets_no_bearer_token(fapi, endpoint, client_id):
    form = signer_of(fapi, client_id).form()
    answer = fapi.post(endpoint, fapi.form(endpoint) | form)
    # A client that is registered for neither could have sent either.
    error = "invalid_dpop_proof" if client_id == "jwt-bound" else "invalid_request"
    require_refusal(answer, 400, error, endpoint)


def test_a_client_without_a_registered_binding_is_bound_to_its_certificate(fapi):
    headers = header_value("nginx", CERTIFICATE.der)
    answer = fapi.post("token", fapi.form("token") | {"client_id": "tls-unnamed"}, headers)
    assert list(claims_of(answer.json["access_token"])["cnf"]) == ["x5t#S256"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_secrets_authenticate_no_client(fapi, endpoint):
    """5.3.2.1: mutual TLS or private_key_jwt."""
    for caller in fapi.demo.clients.values():
        answer = fapi.ask(endpoint, caller)
        require_refusal(answer, 401, "invalid_client", endpoint)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_endpoint_takes_both_methods(fapi, endpoint, authentication, binding):
    answer = ask(fapi, endpoint, authentication, binding)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "audience",
    [
        [ISSUER],
        [ISSUER, f"{ISSUER}/oauth2/token"],
        f"{ISSUER}/oauth2/token",
        f"{ISSUER}/",
        "https://other.example",
        None,
    ],
)
def test_only_the_issuer_as_a_string_is_the_audience(fapi, endpoint, audience):
    """5.3.2.1: the issuer identifier as a string in the `aud` of assertions."""
    form, headers = credentials(fapi, "private_key_jwt", "dpop", aud=audience)
    headers |= proof(fapi, endpoint, "dpop") if endpoint in TOKEN_ENDPOINTS else {}
    answer = fapi.post(endpoint, fapi.form(endpoint) | form, headers)
    require_refusal(answer, 401, "invalid_client", endpoint)


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"iat": 8}, 200),
        ({"nbf": 8}, 200),
        ({"iat": 61}, 401),
        ({"nbf": 61}, 401),
        ({"exp": -61}, 401),
    ],
)
def test_clocks_may_differ_by_ten_seconds_and_not_by_sixty(fapi, claims, status):
    """5.3.2.1, notes on clock skew."""
    now = int(fapi.clock().timestamp())
    shifted = {name: now + seconds for name, seconds in claims.items()}
    form, headers = credentials(fapi, "private_key_jwt", "dpop", **shifted)
    answer = fapi.post("token", fapi.form("token") | form, headers | proof(fapi, "token", "dpop"))
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("alg", ["PS256", "ES256", "EdDSA"])
def test_the_three_algorithms_sign_assertions_and_proofs(fapi, alg):
    """5.4.1."""
    signer = make_signer(fapi.parties, f"by-{alg}", fapi.signer.now, alg)
    headers = {"DPoP": ProofKey(alg).prove(fapi.clock().timestamp())}
    answer = fapi.post("token", fapi.form("token") | signer.form(), headers)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("alg", ["ES384", "PS512", "HS256"])
def test_no_other_algorithm_signs_an_assertion(fapi, alg):
    """5.4.1."""
    signer = make_signer(fapi.parties, f"by-{alg}", fapi.signer.now, alg)
    headers = {"DPoP": KEY.prove(fapi.clock().timestamp())}
    answer = fapi.post("token", fapi.form("token") | signer.form(), headers)
    require_refusal(answer, 401, "invalid_client")


@pytest.mark.parametrize("alg", CLOUD_ALGORITHMS)
@pytest.mark.parametrize("grant_type", [JWT_BEARER, TOKEN_EXCHANGE])
def test_no_other_algorithm_signs_the_token_of_an_issuer(fapi, grant_type, alg):
    """5.4.1."""
    signer = Signer("officer", cloud_key(alg), fapi.signer.now, alg, kid=alg)
    assertion = signer.assertion(iss=CLOUD)
    fields = {"grant_type": grant_type, "assertion": assertion}
    if grant_type == TOKEN_EXCHANGE:
        kind = "urn:ietf:params:oauth:token-type:jwt"
        fields = {
            "grant_type": grant_type,
            "subject_token": assertion,
            "subject_token_type": kind,
        }
    answer = ask(fapi, "token", "private_key_jwt", "dpop", **fields)
    if alg == "ES256":
        assert answer.status_code == 200, answer.text
    else:
        error = "invalid_grant" if grant_type == JWT_BEARER else "invalid_request"
        require_refusal(answer, 400, error)


@pytest.mark.parametrize("alg", ["RS256", "ES384"])
def test_no_other_algorithm_signs_a_proof(fapi, alg):
    """5.4.1."""
    form, _ = credentials(fapi, "private_key_jwt", "dpop")
    headers = {"DPoP": ProofKey(alg).prove(fapi.clock().timestamp())}
    answer = fapi.post("token", fapi.form("token") | form, headers)
    require_refusal(answer, 400, "invalid_dpop_proof")


def test_tokens_are_signed_by_a_permitted_algorithm(fapi, authentication, binding):
    """5.4.1."""
    token = ask(fapi, "token", authentication, binding).json["access_token"]
    assert header_of(token)["alg"] == "ES256"


def test_an_assertion_and_a_proof_are_used_once(fapi):
    """5.3.2.1; RFC 9449, 11.1."""
    form, _ = credentials(fapi, "private_key_jwt", "dpop")
    first, second = proof(fapi, "token", "dpop"), proof(fapi, "token", "dpop")
    request = fapi.form("token") | form
    assert fapi.post("token", request, first).status_code == 200
    require_refusal(fapi.post("token", request, second), 401, "invalid_client")
    again = fapi.form("token") | credentials(fapi, "private_key_jwt", "dpop")[0]
    require_refusal(fapi.post("token", again, first), 400, "invalid_dpop_proof")


def test_another_certificate_authenticates_nobody(fapi):
    form = fapi.form("token") | {"client_id": "tls-certificate"}
    answer = fapi.post("token", form, header_value("nginx", OTHER_CERTIFICATE.der))
    require_refusal(answer, 401, "invalid_client")


def test_metadata_lists_what_remains(fapi):
    """5.3.2.1: discovery metadata (RFC 8414); numbers are numbers."""
    metadata = fapi.get(METADATA).json
    for endpoint in ("token", "introspection", "revocation"):
        named = metadata[f"{endpoint}_endpoint_auth_methods_supported"]
        assert set(named) == {
            "private_key_jwt",
            "tls_client_auth",
            "self_signed_tls_client_auth",
        }
        algorithms = metadata[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
        assert set(algorithms) == {"PS256", "ES256", "EdDSA", "Ed25519"}
    assert set(metadata["dpop_signing_alg_values_supported"]) == set(algorithms)
    assert metadata["tls_client_certificate_bound_access_tokens"] is True
    assert metadata["mtls_endpoint_aliases"]["token_endpoint"] == f"{MTLS}/oauth2/token"
    answer = ask(fapi, "token", "private_key_jwt", "dpop")
    assert type(json.loads(answer.text)["expires_in"]) is int


@pytest.mark.parametrize("grant_type", ["password", "implicit", "refresh_token"])
def test_other_grants_are_refused(fapi, grant_type):
    """5.3.2.1: no password grant."""
    answer = ask(fapi, "token", "private_key_jwt", "dpop", grant_type=grant_type)
    require_refusal(answer, 400, "unsupported_grant_type")


def test_a_registration_that_contradicts_the_profile_is_refused(fapi):
    limits = fapi.services.client_limits()
    assert "client_secret" not in limits.authentication_methods
    assert "private_key_jwt" in limits.authentication_methods
