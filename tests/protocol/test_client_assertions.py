"""Client assertions (RFC 7523; draft rfc7523bis; FAPI 2.0): alike at every endpoint."""

import hmac
import json
from collections.abc import Iterator
from datetime import timedelta

import pytest

from support.assertions import (
    ALGORITHMS,
    HMAC_ALGORITHMS,
    JWT_BEARER,
    METHODS,
    Signer,
    jwks_of,
    make_signer,
    new_key,
)
from support.forged_tokens import segment
from support.parties import ACTOR
from support.protocol import (
    ENDPOINTS,
    Protocol,
    facts,
    require_refusal,
    running_protocol,
)
from support.settings_file import ISSUER

WRONG = "wrong-wrong-wrong-wrong-wrong-wrong-wrong-w"


class Cast:
    """An application and clients that sign assertions."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self._number = 0
        self.signers = {method: self.new(method) for method in METHODS}

    def new(self, method: str = "private_key_jwt", alg: str = "", **values) -> Signer:
        self._number += 1
        alg = alg or {"private_key_jwt": "ES256", "client_secret_jwt": "HS256"}[method]
        name = f"signer-{self._number}"
        return make_signer(self.protocol.parties, name, self.now, alg, **values)

    def now(self) -> float:
        return self.protocol.clock().timestamp()

    def offer(self, endpoint: str, form: dict[str, str]):
        return self.protocol.post(endpoint, self.protocol.form(endpoint) | form)

    def accepts(self, signer: Signer, assertion: str | None = None, **fields: str) -> bool:
        answer = self.offer("token", signer.form(assertion, **fields))
        if answer.status_code != 200:
            require_refusal(answer, 401, "invalid_client")
        return answer.status_code == 200

    def cause(self) -> str:
        """Return the recorded reason of the last refusal, recorded alone."""
        reason: str = json.loads(self.protocol.audit_trail().splitlines()[-1])["reason"]
        return reason

    def refusal(self, signer: Signer, assertion: str, endpoint: str = "token", **fields) -> str:
        """Return the recorded reason for which an assertion is refused."""
        self._number += 1
        base = {"REMOTE_ADDR": f"198.18.{self._number // 256}.{self._number % 256}"}
        form = self.protocol.form(endpoint) | signer.form(assertion, **fields)
        answer = self.protocol.post(endpoint, form, environ_base=base)
        require_refusal(answer, 401, "invalid_client", endpoint)
        return self.cause()

    def change(self, signer: Signer, **values) -> None:
        with self.protocol.parties.change() as (services, session):
            services.clients.update_client(session, signer.id, actor=ACTOR, **values)


@pytest.fixture(scope="module")
def cast(module_database_url: str, tmp_path_factory) -> Iterator[Cast]:
    directory = tmp_path_factory.mktemp("assertions")
    # A twin would find each assertion used up.
    with running_protocol(directory, module_database_url) as protocol:
        yield Cast(protocol)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_assertion_authenticates_its_client_once(cast: Cast, endpoint: str, method: str):
    """Cases A3, D51."""
    signer = cast.signers[method]
    form = signer.form()
    assert cast.offer(endpoint, form).status_code == 200
    for other in ENDPOINTS:
        answer = cast.offer(other, form)
        require_refusal(answer, 401, "invalid_client", other)
    assert cast.refusal(signer, form["client_assertion"], endpoint) == "assertion_replayed"


@pytest.mark.parametrize("alg", [*ALGORITHMS, *HMAC_ALGORITHMS])
def test_every_advertised_algorithm_is_accepted(cast: Cast, alg: str):
    """Case D38."""
    method = METHODS[alg in HMAC_ALGORITHMS]
    metadata = cast.protocol.get("/.well-known/oauth-authorization-server").json
    for endpoint in ("token", "introspection", "revocation"):
        assert method in metadata[f"{endpoint}_endpoint_auth_methods_supported"]
        assert alg in metadata[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
    assert cast.accepts(cast.new(method, alg))


def test_no_other_algorithm_is_accepted(cast: Cast):
    """Case D38."""
    metadata = cast.protocol.get("/.well-known/oauth-authorization-server").json
    advertised = metadata["token_endpoint_auth_signing_alg_values_supported"]
    assert sorted(advertised) == sorted([*ALGORITHMS, *HMAC_ALGORITHMS])
    key = new_key("RS256")
    signer = cast.new()
    cast.change(signer, properties={"jwks": jwks_of(key)})
    rs256 = Signer(signer.id, key, cast.now, "RS256")
    assert cast.refusal(rs256, rs256.assertion()) == "assertion_algorithm"
    assert cast.accepts(Signer(signer.id, key, cast.now, "PS256"))


def test_a_setting_permits_rs256(start_protocol):
    """Case D38."""
    protocol = start_protocol(assertions={"algorithms": ["RS256"]})
    metadata = protocol.get("/.well-known/oauth-authorization-server").json
    assert metadata["token_endpoint_auth_signing_alg_values_supported"] == ["RS256"]
    assert "client_secret_jwt" not in metadata["token_endpoint_auth_methods_supported"]
    clock = protocol.clock
    signer = make_signer(protocol.parties, "old", lambda: clock().timestamp(), "RS256")
    assert protocol.ask("token", signer).status_code == 200


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_refusal_is_answered_alike(cast: Cast, endpoint: str, method: str):
    """Cases A1, A7, A15."""
    signer, other = cast.new(method), cast.new(method)
    disabled, expired, moved = (cast.new(method) for _ in range(3))
    with cast.protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, disabled.id, actor=ACTOR, enabled=False)
    cast.change(expired, expires_at=cast.protocol.clock() + timedelta(seconds=1))
    cast.change(moved, authentication_method="client_secret_post")
    cast.protocol.clock.advance(1)
    forged = Signer(signer.id, other.key, cast.now, other.alg, "key-1")
    unknown = Signer("no-such-client", other.key, cast.now, other.alg, "key-1")
    expected = {
        "client_unknown": (unknown, unknown.assertion()),
        "assertion_signature": (forged, forged.assertion()),
        "client_disabled": (disabled, disabled.assertion()),
        "client_expired": (expired, expired.assertion()),
        "method_not_registered": (moved, moved.assertion()),
        "assertion_audience": (signer, signer.assertion(aud="https://elsewhere.example")),
        "assertion_expired": (signer, signer.assertion(iat=1, exp=2)),
        "assertion_malformed": (signer, "not-a-token"),
    }
    answers = {}
    for cause, (each, assertion) in expected.items():
        assert cast.refusal(each, assertion, endpoint) == cause
        answers[cause] = facts(cast.offer(endpoint, each.form(assertion)))
    assert {repr(each) for each in answers.values()} == {repr(answers["client_unknown"])}
    assert cast.accepts(signer)


@pytest.mark.parametrize("method", METHODS)
def test_a_refused_request_uses_no_assertion_up(cast: Cast, method: str):
    """Case D51."""
    signer = cast.new(method)
    assertion = signer.assertion()
    with cast.protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, signer.id, actor=ACTOR, enabled=False)
    assert cast.refusal(signer, assertion) == "client_disabled"
    with cast.protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, signer.id, actor=ACTOR, enabled=True)
    assert cast.accepts(signer, assertion)
    other = cast.new(method)
    # The jti of another client is another assertion.
    jti = "the-same-for-both"
    assert cast.accepts(signer, signer.assertion(jti=jti))
    assert cast.accepts(other, other.assertion(jti=jti))
    assert cast.refusal(signer, signer.assertion(jti=jti)) == "assertion_replayed"


AUDIENCES = {
    "token endpoint": f"{ISSUER}/oauth2/token",
    "slash": f"{ISSUER}/",
    "case": ISSUER.upper(),
    "port": f"{ISSUER}:443",
    "http": ISSUER.replace("https", "http"),
    "other issuer": "https://elsewhere.example",
    "empty": "",
    "empty list": [],
    "list with another": [ISSUER, "https://elsewhere.example"],
    "list with itself": [ISSUER, ISSUER],
    "nested list": [[ISSUER]],
    "object": {"0": ISSUER},
    "number": 7,
    "missing": None,
}


@pytest.mark.parametrize("name", AUDIENCES)
@pytest.mark.parametrize("method", METHODS)
def test_the_audience_is_the_issuer_alone(cast: Cast, method: str, name: str):
    """Case D48."""
    signer = cast.signers[method]
    assertion = signer.assertion(aud=AUDIENCES[name])
    assert cast.refusal(signer, assertion) == "assertion_audience"


def test_the_issuer_as_the_one_element_of_a_list(cast: Cast):
    """Case D48."""
    signer = cast.signers["private_key_jwt"]
    assert cast.accepts(signer, signer.assertion(aud=[ISSUER]))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "client-authentication+jwt", "application/JWT"])
def test_permitted_types(cast: Cast, typ: str):
    """Case D48."""
    signer = cast.signers["private_key_jwt"]
    assert cast.accepts(signer, signer.assertion({"typ": typ}))


@pytest.mark.parametrize("typ", ["at+jwt", "dpop+jwt", "JOSE", "x", "token-introspection+jwt"])
@pytest.mark.parametrize("method", METHODS)
def test_other_types(cast: Cast, method: str, typ: str):
    """Case D48."""
    signer = cast.signers[method]
    assert cast.refusal(signer, signer.assertion({"typ": typ})) == "assertion_type"


@pytest.mark.parametrize(
    ("claims", "cause"),
    [
        ({"iat": 8, "exp": 60}, ""),
        ({"nbf": 8, "exp": 60}, ""),
        ({"iat": 10, "exp": 310}, ""),
        ({"iat": 0, "exp": 300}, ""),
        ({"iat": None, "exp": 300}, ""),
        ({"iat": -280, "exp": 20}, ""),
        ({"iat": -60, "exp": -9}, ""),
        ({"iat": 11, "exp": 60}, "assertion_not_yet_valid"),
        ({"iat": 61, "exp": 90}, "assertion_not_yet_valid"),
        ({"iat": 0, "nbf": 61, "exp": 90}, "assertion_not_yet_valid"),
        ({"iat": None, "nbf": 61, "exp": 90}, "assertion_not_yet_valid"),
        ({"iat": -60, "exp": -10}, "assertion_expired"),
        ({"iat": -600, "exp": -300}, "assertion_expired"),
        ({"iat": 0, "exp": 301}, "assertion_lifetime"),
        ({"iat": -280, "exp": 60}, "assertion_lifetime"),
        ({"iat": 10, "exp": 311}, "assertion_lifetime"),
        ({"iat": None, "exp": 311}, "assertion_lifetime"),
        ({"iat": None, "exp": 3_600}, "assertion_lifetime"),
        ({"iat": 5, "exp": 5}, "assertion_malformed"),
        ({"nbf": 9, "exp": 5}, "assertion_malformed"),
    ],
)
def test_times(cast: Cast, claims: dict, cause: str):
    """Case D50. The numbers are seconds from the present."""
    signer = cast.signers["private_key_jwt"]
    now = int(cast.now())
    times = {name: None if value is None else now + value for name, value in claims.items()}
    assertion = signer.assertion(**times)
    if cause:
        assert cast.refusal(signer, assertion) == cause
    else:
        assert cast.accepts(signer, assertion)


NUMBERS = (
    *("NaN", "Infinity", "-Infinity", "1e400", "1" + "0" * 400, "9" * 5_000),
    *("-1", "1.5", "1e9", "0x10", '"1900000000"', "true", "null", "[]", "{}"),
)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
def test_numbers_that_are_no_times(cast: Cast, name: str, number: str):
    """Case D46."""
    signer = cast.signers["private_key_jwt"]
    claims = signer.claims()
    claims.pop(name, None)
    payload = f'{json.dumps(claims)[:-1]}, "{name}": {number}}}'
    assert cast.refusal(signer, signer.sign(payload)) == "assertion_malformed"


@pytest.mark.parametrize("name", ["iss", "sub", "jti", "exp"])
def test_a_claim_that_is_missing(cast: Cast, name: str):
    """Case D50."""
    signer = cast.signers["private_key_jwt"]
    assert cast.refusal(signer, signer.assertion(**{name: None})) == "assertion_malformed"


@pytest.mark.parametrize(
    "value", [[], ["x"], {}, {"a": 1}, 7, True, "", "a\0b", "a\nb", "x" * 5_000, "\u2028"]
)
@pytest.mark.parametrize("name", ["iss", "sub", "jti"])
def test_a_claim_of_another_kind(cast: Cast, name: str, value: object):
    """Case D47."""
    signer = cast.signers["private_key_jwt"]
    cause = cast.refusal(signer, signer.assertion(**{name: value}))
    is_text = isinstance(value, str) and value
    # Another subject is another client; another issuer is none of this client.
    allowed = {"assertion_malformed", *(["client_unknown"] if is_text and name == "sub" else [])}
    allowed |= {"assertion_issuer"} if is_text and name == "iss" else set()
    assert cause in allowed


def test_a_lone_surrogate_in_a_claim(cast: Cast):
    """Case D47."""
    signer = cast.signers["private_key_jwt"]
    payload = json.dumps(signer.claims(jti="surrogate")).replace("surrogate", "\\ud800")
    assert cast.refusal(signer, signer.sign(payload)) == "assertion_malformed"
    repeated = json.dumps(signer.claims())[:-1] + f', "sub": "{signer.id}"}}'
    assert cast.refusal(signer, signer.sign(repeated)) == "assertion_malformed"


def test_issuer_subject_and_client_id_are_one(cast: Cast):
    signer, other = cast.new(), cast.new()
    assert cast.accepts(signer, client_id=signer.id)
    assertion = signer.assertion()
    assert cast.refusal(signer, assertion, client_id=other.id) == "assertion_issuer"
    assert cast.refusal(signer, signer.assertion(iss=other.id)) == "assertion_issuer"
    # Of a client whose key did not sign.
    stolen = signer.assertion(sub=other.id, iss=other.id)
    assert cast.refusal(signer, stolen) == "assertion_signature"
    assert cast.accepts(signer, assertion)


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1 --", "\0", "k" * 128, "other"])
def test_unknown_key_ids(cast: Cast, kid: str):
    """Case D40."""
    signer = cast.signers["private_key_jwt"]
    assert cast.refusal(signer, signer.assertion({"kid": kid})) == "assertion_key_unknown"


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "k" * 5_000},
        {"jku": "https://attacker.example"},
        {"x5u": "https://attacker.example"},
        {"x5c": ["AAAA"]},
        {"jwk": jwks_of(new_key())["keys"][0]},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
    ],
)
def test_headers_that_are_refused(cast: Cast, header: dict):
    """Cases D39, D40, D41."""
    signer = cast.signers["private_key_jwt"]
    assert cast.refusal(signer, signer.assertion(header)) == "assertion_malformed"


def test_an_attacker_s_key_in_the_header(cast: Cast):
    """Case D39: also where the client has no key of its own."""
    attacker = new_key()
    keyless = cast.new(properties={})
    for signer in (keyless, cast.signers["private_key_jwt"]):
        forged = Signer(signer.id, attacker, cast.now)
        header = {"jwk": jwks_of(attacker)["keys"][0]}
        assert cast.refusal(forged, forged.assertion(header)) == "assertion_malformed"
        assert cast.refusal(forged, forged.assertion()) in {
            "assertion_key_unknown",
            "assertion_signature",
        }


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "", "HS1", "RSA1_5", "ES256K", "ML-DSA-44"]
)
def test_algorithms_that_do_not_exist_here(cast: Cast, alg: str):
    """Case D36."""
    signer = cast.signers["private_key_jwt"]
    payload = segment(signer.claims())
    for signature in ("", segment(b"x" * 64)):
        token = f"{segment({'alg': alg})}.{payload}.{signature}"
        cause = "assertion_algorithm" if signature else "assertion_malformed"
        assert cast.refusal(signer, token) == cause


def test_a_public_key_as_the_secret(cast: Cast):
    """Case D37."""
    signer = cast.signers["private_key_jwt"]
    public = signer.key.as_dict(private=False)
    texts = [signer.key.as_pem(private=False), signer.key.as_der(private=False)]
    texts += [json.dumps(public).encode(), json.dumps(public | {"kid": "key-1"}).encode()]
    for text in texts:
        for alg in HMAC_ALGORITHMS:
            head = f"{segment({'alg': alg, 'kid': 'key-1'})}.{segment(signer.claims())}"
            signature = hmac.digest(text, head.encode(), alg.replace("HS", "sha"))
            token = f"{head}.{segment(signature)}"
            assert cast.refusal(signer, token) == "assertion_signature"


def test_a_client_registered_for_one_algorithm(cast: Cast):
    """Case D38."""
    key = new_key("PS256")
    signer = cast.new(properties={"jwks": jwks_of(key), "token_endpoint_auth_signing_alg": "PS384"})
    for alg, accepted in (("PS256", False), ("PS384", True)):
        each = Signer(signer.id, key, cast.now, alg)
        if accepted:
            assert cast.accepts(each)
        else:
            assert cast.refusal(each, each.assertion()) == "assertion_algorithm"


def test_several_keys_of_a_client(cast: Cast):
    old, new = new_key(), new_key()
    keys = [jwks_of(old, kid="old")["keys"][0], jwks_of(new, kid="new")["keys"][0]]
    signer = cast.new(properties={"jwks": {"keys": keys}})
    for key, kid in ((old, "old"), (new, "new")):
        assert cast.accepts(Signer(signer.id, key, cast.now, kid=kid))
    nameless = Signer(signer.id, new, cast.now)
    assert cast.refusal(nameless, nameless.assertion()) == "assertion_key_unknown"
    cast.change(signer, properties={"jwks": jwks_of(new, kid="new")})
    assert cast.accepts(nameless)
    ended = Signer(signer.id, old, cast.now, kid="old")
    assert cast.refusal(ended, ended.assertion()) == "assertion_key_unknown"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_secret_that_signs_is_no_password(cast: Cast, endpoint: str):
    """Case A7."""
    signer = cast.new("client_secret_jwt")
    secret = signer.key.raw_value.decode()
    for presentation in ("client_secret_post", "client_secret_basic"):
        answer = cast.protocol.offer(endpoint, presentation, signer.id, secret)
        require_refusal(answer, 401, "invalid_client", endpoint)
    assert cast.accepts(signer)


def test_a_password_signs_nothing(cast: Cast):
    """Case A7."""
    client = cast.protocol.new_client("client_secret_post")
    for alg in HMAC_ALGORITHMS:
        signer = Signer(client.id, client.secret, cast.now, alg)
        assert cast.refusal(signer, signer.assertion()) == "assertion_signature"


def test_secrets_that_ended(cast: Cast):
    """Case A12."""
    signer = cast.new("client_secret_jwt")
    with cast.protocol.parties.change() as (services, session):
        _, secret = services.clients.add_secret(session, signer.id, actor=ACTOR)
        (old, _new) = services.clients.get_client(session, signer.id).secrets
        services.clients.end_secret(session, signer.id, old.id, actor=ACTOR)
    cast.protocol.parties.watch.note(secret)
    assert cast.refusal(signer, signer.assertion()) == "secret_expired"
    assert cast.accepts(Signer(signer.id, secret, cast.now, "HS512"))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_assertion_beside_other_credentials(cast: Cast, endpoint: str):
    """Case A5."""
    signer = cast.signers["private_key_jwt"]
    form = cast.protocol.form(endpoint) | signer.form()
    basic = cast.protocol.demo.basic
    for fields, headers in (
        ({"client_secret": WRONG}, {}),
        ({"client_id": signer.id, "client_secret": WRONG}, {}),
        ({}, basic.headers()),
    ):
        answer = cast.protocol.post(endpoint, form | fields, headers)
        require_refusal(answer, 400, "invalid_request", endpoint)


@pytest.mark.parametrize(
    "kind", ["", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer", JWT_BEARER.upper()]
)
def test_another_type_of_assertion(cast: Cast, kind: str):
    signer = cast.signers["private_key_jwt"]
    form = signer.form() | {"client_assertion_type": kind}
    require_refusal(cast.offer("token", form), 401, "invalid_client")
    form.pop("client_assertion_type")
    require_refusal(cast.offer("token", form), 401, "invalid_client")


def test_a_resource_server_authenticates_by_its_key(cast: Cast):
    key, token = new_key(), cast.protocol.new_token()
    with cast.protocol.parties.change() as (services, session):
        services.clients.update_resource_server(
            session,
            "mapper",
            actor=ACTOR,
            authentication_method="private_key_jwt",
            properties={"jwks": jwks_of(key)},
        )
    mapper = Signer("mapper", key, cast.now)
    answer = cast.offer("introspect", {"token": token, **mapper.form()})
    assert answer.json["active"] is True
    answer = cast.protocol.post("introspect", {"token": token}, cast.protocol.demo.mapper.headers())
    require_refusal(answer, 401, "invalid_client")


def test_the_record_of_a_token_names_the_method(cast: Cast):
    """Case K124."""
    for method, signer in cast.signers.items():
        assert cast.accepts(signer)
        record = json.loads(cast.protocol.audit_trail().splitlines()[-1])
        assert (record["event"], record["authentication_method"]) == ("token.issued", method)
