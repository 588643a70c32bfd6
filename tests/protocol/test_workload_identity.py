"""Workloads that authenticate by tokens of their platform (RFC 7523, 2.2)."""

import json
import time
from collections.abc import Iterator
from functools import partial
from itertools import count

import pytest

from support.assertions import JWT_BEARER, Signer, make_signer, new_key
from support.claims import claims_of
from support.issuers import CLUSTER, TRUST_DOMAIN, Issuers
from support.parties import ACTOR
from support.protocol import ENDPOINTS, Protocol, require_refusal, running_protocol
from support.settings_file import ISSUER

_SENDERS = count()
JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
ACCOUNT = "system:serviceaccount:payments:batch"
JOB = "repo:ministry/payments:ref:refs/heads/main"
SVID = f"{TRUST_DOMAIN}/ns/payments/sa/batch"
IDENTITIES = {
    "batch": [
        {
            "issuer": "cluster",
            "subject": ACCOUNT,
            "claims": {"kubernetes.io": {"namespace": "payments"}},
        }
    ],
    "job": [
        {
            "issuer": "provider",
            "subject": "repo:ministry/*:ref:**",
            "claims": {"env": ["p", "q"]},
        }
    ],
    "svid": [{"issuer": TRUST_DOMAIN, "subject": SVID}],
}
CLUSTER_CLAIMS = {"kubernetes.io": {"namespace": "payments", "pod": {"name": "batch-0"}}}


@pytest.fixture(scope="module")
def issuers(tmp_path_factory) -> Iterator[Issuers]:
    with Issuers(tmp_path_factory.mktemp("issuers")) as issuers:
        yield issuers


@pytest.fixture(scope="module")
def protocol(module_database_url: str, issuers: Issuers) -> Iterator[Protocol]:
    """The application with registered issuers, and a client for each kind of workload."""
    directory = issuers.directory
    with running_protocol(
        directory, module_database_url, has_twin=True, **issuers.settings()
    ) as protocol:
        issuers.clock = protocol.clock
        protocol.parties.import_scopes()
        for client_id, identities in IDENTITIES.items():
            add_client(protocol, client_id, identities)
        yield protocol


def add_client(protocol: Protocol, client_id: str, identities, **values) -> None:
    fields = {
        "name": client_id,
        "authentication_method": "workload_identity",
        "allowed_scopes": ["mapper/link"],
        "properties": {"workload_identities": identities},
    }
    with protocol.parties.change() as (services, session):
        services.clients.create_client(session, actor=ACTOR, id=client_id, **fields | values)


@pytest.fixture(params=ENDPOINTS)
def endpoint(request) -> str:
    return request.param


@pytest.fixture(params=["batch", "job", "svid"])
def workload(request, issuers) -> tuple[str, Signer]:
    """A client's id, and the signer of its platform's tokens."""
    signer = {
        "batch": lambda: issuers.cluster_signer(ACCOUNT, **CLUSTER_CLAIMS),
        "job": lambda: issuers.provider_signer(JOB, env="q"),
        "svid": lambda: issuers.spiffe_signer(SVID),
    }[request.param]()
    return request.param, signer


def ask(protocol: Protocol, endpoint: str, token: str, **fields: str):
    """Send a form that succeeds if the token authenticates its sender.

    Each is sent from another address: frequent refusals of one sender are only counted.
    """
    kind = JWT_SPIFFE if claims_of(token).get("iss") is None else JWT_BEARER
    usual = {"client_assertion_type": kind, "client_assertion": token}
    number = next(_SENDERS)
    sender = {"REMOTE_ADDR": f"198.18.{number // 256}.{number % 256}"}
    form = protocol.form(endpoint) | usual | fields
    return protocol.post(endpoint, form, environ_overrides=sender)


def cause_of(protocol: Protocol) -> str:
    return json.loads(protocol.audit_trail().splitlines()[-1])["reason"]


def test_a_workload_authenticates_at_every_endpoint_with_and_without_its_id(
    protocol, endpoint, workload
):
    """The same token is accepted again: a platform hands one out for minutes or hours."""
    client_id, signer = workload
    token = signer.assertion()
    typed = signer.assertion({"typ": "client-authentication+jwt"})
    for sent, fields in ((token, {}), (token, {"client_id": client_id}), (token, {}), (typed, {})):
        answer = ask(protocol, endpoint, sent, **fields)
        assert answer.status_code == 200, answer.text
        if "access_token" in answer.json:
            claims = claims_of(answer.json["access_token"])
            assert (claims["sub"], claims["client_id"]) == (client_id, client_id)


def test_the_record_names_the_method(protocol, issuers):
    for signer, method in (
        (issuers.cluster_signer(ACCOUNT, **CLUSTER_CLAIMS), "workload_identity"),
        (issuers.spiffe_signer(SVID), "spiffe_jwt"),
    ):
        assert ask(protocol, "token", signer.assertion()).status_code == 200
        record = json.loads(protocol.audit_trail().splitlines()[-1])
        assert record["authentication_method"] == method


CHANGED_CLAIMS = {
    "another subject": ({"sub": "system:serviceaccount:payments:other"}, "assertion_subject"),
    "a longer subject": ({"sub": f"{ACCOUNT}:x"}, "assertion_subject"),
    "no subject": ({"sub": None}, "assertion_malformed"),
    "an empty subject": ({"sub": ""}, "assertion_malformed"),
    "a list as subject": ({"sub": [ACCOUNT]}, "assertion_malformed"),
    "a control character": ({"sub": f"{ACCOUNT}\n"}, "assertion_malformed"),
    "another audience": ({"aud": "https://other.example"}, "assertion_subject"),
    "a further audience": ({"aud": [ISSUER, "https://other.example"]}, "assertion_subject"),
    "no audience": ({"aud": None}, "assertion_subject"),
    "another namespace": ({"kubernetes.io": {"namespace": "other"}}, "assertion_subject"),
    "no namespace": ({"kubernetes.io": None}, "assertion_subject"),
    "a text for an object": ({"kubernetes.io": "payments"}, "assertion_subject"),
    "no expiry": ({"exp": None}, "assertion_malformed"),
    "a text as expiry": ({"exp": "9999999999"}, "assertion_malformed"),
    "an infinite expiry": ({"exp": 1e308}, "assertion_malformed"),
    "true as expiry": ({"exp": True}, "assertion_malformed"),
    "a negative time": ({"iat": -1}, "assertion_malformed"),
}


@pytest.mark.parametrize("name", CHANGED_CLAIMS)
def test_a_token_with_other_claims_is_refused_at_every_endpoint(protocol, issuers, endpoint, name):
    """Case A7."""
    changes, cause = CHANGED_CLAIMS[name]
    signer = issuers.cluster_signer(ACCOUNT, **CLUSTER_CLAIMS)
    answer = ask(protocol, endpoint, signer.assertion(**changes), client_id="batch")
    require_refusal(answer, 401, "invalid_client", endpoint)
    assert cause_of(protocol) == cause


def test_a_token_outside_its_times_is_refused(protocol, issuers):
    now = int(protocol.clock().timestamp())
    signer = issuers.cluster_signer(ACCOUNT, **CLUSTER_CLAIMS)
    for times, cause in (
        ({"iat": now - 100, "exp": now - 11}, "assertion_expired"),
        ({"iat": now + 11, "exp": now + 100}, "assertion_not_yet_valid"),
        ({"nbf": now + 11}, "assertion_not_yet_valid"),
        ({"iat": now - 1, "exp": now + 7_210}, "assertion_lifetime"),
        ({"iat": None, "exp": now + 7_200}, "assertion_lifetime"),
        ({"iat": now - 3_011, "exp": now + 100}, "assertion_lifetime"),
        # Without iat its age is not known.
        ({"iat": None}, "assertion_lifetime"),
    ):
        answer = ask(protocol, "token", signer.assertion(**times))
        require_refusal(answer, 401, "invalid_client")
        assert cause_of(protocol) == cause, times
    for times in (
        {"iat": now - 100, "exp": now - 9},
        {"iat": now + 9, "nbf": now + 9},
        {"iat": now - 3_000, "exp": now + 4_200},
    ):
        assert ask(protocol, "token", signer.assertion(**times)).status_code == 200, times


def test_a_token_that_the_issuer_did_not_sign_is_refused(protocol, endpoint, workload):
    """The keys of an issuer, and the type of its tokens."""
    client_id, signer = workload
    forged = {
        "another key": (Signer("", new_key(signer.alg), signer.now, signer.alg, "c"), None),
        "another kid": (signer, {"kid": "other"}),
        "an access token": (signer, {"typ": "at+jwt"}),
        "a proof": (signer, {"typ": "dpop+jwt"}),
        "an authorization": (signer, {"typ": "authorization-grant+jwt"}),
        "a key of its own": (signer, {"jwk": new_key().as_dict(private=False)}),
    }
    for name, (forger, header) in forged.items():
        token = forger.assertion(header, **signer.claims())
        answer = ask(protocol, endpoint, token, client_id=client_id)
        assert (name, answer.status_code) == (name, 401)
        require_refusal(answer, 401, "invalid_client", endpoint)
    token = signer.assertion()
    head, payload, signature = token.split(".")
    kind = JWT_SPIFFE if client_id == "svid" else JWT_BEARER
    for end in ("", ".", f".{signature[:-4]}AAAA", f".{signature}.{signature}"):
        fields = {"client_assertion": f"{head}.{payload}{end}", "client_assertion_type": kind}
        answer = ask(protocol, endpoint, token, **fields)
        require_refusal(answer, 401, "invalid_client", endpoint)


def test_the_algorithm_of_another_issuer_is_not_accepted(protocol, issuers):
    """A key set may hold keys of several types; the issuer's settings decide."""
    issuers.publish()
    key = issuers.provider_key
    signer = Signer("", key, lambda: protocol.clock().timestamp(), "ES256", "p")
    token = signer.assertion(iss=CLUSTER, sub=ACCOUNT, **CLUSTER_CLAIMS)
    require_refusal(ask(protocol, "token", token), 401, "invalid_client")


def test_an_issuer_that_is_not_registered_is_refused(protocol, issuers, endpoint):
    for issuer in ("https://other.example", f"{CLUSTER}/", CLUSTER.upper(), "", None, 7):
        signer = issuers.cluster_signer(ACCOUNT, **CLUSTER_CLAIMS)
        token = signer.assertion(iss=issuer)
        fields = {"client_assertion_type": JWT_BEARER, "client_id": "batch"}
        require_refusal(ask(protocol, endpoint, token, **fields), 401, "invalid_client", endpoint)


def test_a_svid_is_of_a_registered_trust_domain_and_its_subject_is_one(protocol, issuers, endpoint):
    for subject in (
        "spiffe://other.example/ns/payments/sa/batch",
        "spiffe://example.org.other/ns/payments/sa/batch",
        "spiffe://EXAMPLE.org/ns/payments/sa/batch",
        "spiffe://example.org@other.example/ns/payments/sa/batch",
        "spiffe://example.org:443/ns/payments/sa/batch",
        TRUST_DOMAIN,
        f"{TRUST_DOMAIN}/",
        f"{TRUST_DOMAIN}/ns//sa/batch",
        f"{TRUST_DOMAIN}/ns/../sa/batch",
        f"{SVID}/",
        f"{SVID}?x",
        ACCOUNT,
    ):
        token = issuers.spiffe_signer(subject).assertion()
        fields = {"client_assertion_type": JWT_SPIFFE, "client_id": "svid"}
        require_refusal(ask(protocol, endpoint, token, **fields), 401, "invalid_client", endpoint)


def test_the_type_of_an_assertion_decides_whose_it_is(protocol, issuers):
    """A provider that signs a SPIFFE ID does not become its trust domain, nor the reverse."""
    subject = f"{TRUST_DOMAIN}/of-two"
    identity = {"issuer": "provider", "subject": subject}
    add_client(protocol, "of-two", [identity], authentication_method="spiffe_jwt")
    add_client(protocol, "of-one", [identity])
    token = issuers.provider_signer(subject).assertion()
    for client_id in ("of-two", "of-one"):
        fields = {"client_assertion_type": JWT_SPIFFE, "client_id": client_id}
        require_refusal(ask(protocol, "token", token, **fields), 401, "invalid_client")
    assert ask(protocol, "token", token, client_id="of-one").status_code == 200
    svid = issuers.spiffe_signer(SVID).assertion(iss=issuers.provider)
    require_refusal(ask(protocol, "token", svid, client_id="svid"), 401, "invalid_client")
    fields = {"client_assertion_type": JWT_SPIFFE}
    assert ask(protocol, "token", svid, **fields).status_code == 200


def test_a_key_of_the_bundle_that_is_not_for_svids_is_not_used(protocol, issuers):
    signer = issuers.spiffe_signer(SVID)
    issuers.bundle_use = "sig"
    try:
        issuers.publish()
        require_refusal(ask(protocol, "token", signer.assertion()), 401, "invalid_client")
    finally:
        issuers.bundle_use = "jwt-svid"
        issuers.publish()
    assert ask(protocol, "token", signer.assertion()).status_code == 200


def test_a_client_is_authenticated_only_as_it_is_registered(protocol, issuers, endpoint):
    """Case A7. Neither does a secret do for a workload, nor a workload for a secret."""
    signer = issuers.cluster_signer("system:serviceaccount:payments:second", **CLUSTER_CLAIMS)
    identity = [{"issuer": CLUSTER, "subject": "system:serviceaccount:payments:second"}]
    caller = protocol.new_client("client_secret_post", properties={"workload_identities": identity})
    answer = ask(protocol, endpoint, signer.assertion(), client_id=caller.id)
    require_refusal(answer, 401, "invalid_client", endpoint)
    assert cause_of(protocol) == "method_not_registered"
    svid_only = f"svid-only-{caller.id}"
    identity = [{"issuer": "spiffe", "subject": f"{TRUST_DOMAIN}/{svid_only}"}, *identity]
    add_client(protocol, svid_only, identity, authentication_method="spiffe_jwt")
    token = issuers.spiffe_signer(f"{TRUST_DOMAIN}/{svid_only}").assertion()
    assert ask(protocol, endpoint, token).status_code == 200
    answer = ask(protocol, endpoint, signer.assertion(), client_id=svid_only)
    require_refusal(answer, 401, "invalid_client", endpoint)


def test_another_clients_id_and_an_unknown_one_are_refused_alike(protocol, issuers, endpoint):
    signer = issuers.cluster_signer(ACCOUNT, **CLUSTER_CLAIMS)
    answers = [
        ask(protocol, endpoint, signer.assertion(), client_id=client_id)
        for client_id in ("job", "no-such-client")
    ]
    for answer in answers:
        require_refusal(answer, 401, "invalid_client", endpoint)
    assert answers[0].data == answers[1].data


def test_a_subject_of_several_clients_has_to_say_which(protocol, issuers):
    subject = "system:serviceaccount:shared:one"
    for client_id in ("shared-one", "shared-two"):
        add_client(protocol, client_id, [{"issuer": "cluster", "subject": subject}])
    token = issuers.cluster_signer(subject).assertion()
    require_refusal(ask(protocol, "token", token), 401, "invalid_client")
    assert ask(protocol, "token", token, client_id="shared-two").status_code == 200


def test_a_disabled_client_and_a_removed_identity_are_refused_at_once(protocol, issuers):
    """Case A15."""
    subject = "system:serviceaccount:payments:brief"
    add_client(protocol, "brief", [{"issuer": "cluster", "subject": subject}])
    token = issuers.cluster_signer(subject).assertion()
    clients = protocol.services.clients
    for change, is_accepted in (
        (partial(clients.set_enabled, enabled=False), False),
        (partial(clients.set_enabled, enabled=True), True),
        (partial(clients.update_client, properties={"workload_identities": None}), False),
    ):
        with protocol.parties.change() as (_, session):
            change(session, "brief", actor=ACTOR)
        for fields in ({}, {"client_id": "brief"}):
            answer = ask(protocol, "token", token, **fields)
            assert answer.status_code == (200 if is_accepted else 401), answer.text


def test_a_second_method_in_the_request_is_refused(protocol, issuers, endpoint):
    """Case A5."""
    token = issuers.cluster_signer(ACCOUNT, **CLUSTER_CLAIMS).assertion()
    answer = ask(protocol, endpoint, token, client_id="batch", client_secret="secret")
    require_refusal(answer, 400, "invalid_request", endpoint)


def test_a_clients_own_assertion_is_not_mistaken_for_one_of_an_issuer(protocol):
    signer = make_signer(protocol.parties, "self-made", lambda: protocol.clock().timestamp())
    twin, protocol.client.twin = protocol.client.twin, None
    answer = ask(protocol, "token", signer.assertion())
    protocol.client.twin = twin
    assert answer.status_code == 200, answer.text


def test_a_new_key_of_an_issuer_is_found(protocol, issuers):
    """A key that is not in the cached document has it fetched again."""
    issuers.provider_key = new_key("ES256")
    issuers.publish("new")
    # The shortest time between two fetches.
    time.sleep(1.1)
    signer = issuers.provider_signer(JOB, env="p")
    token = signer.assertion({"kid": "new"})
    assert ask(protocol, "token", token).status_code == 200
    issuers.publish()


def test_a_key_that_an_issuer_replaced_under_its_id_is_found(protocol, issuers):
    """A signature that the cached key refuses has the document fetched again."""
    # Another test may have published other keys a moment ago.
    time.sleep(1.1)
    first = issuers.provider_signer(JOB, env="p").assertion()
    assert ask(protocol, "token", first).status_code == 200
    former = issuers.provider_signer(JOB, env="p")
    issuers.provider_key = new_key("ES256")
    issuers.publish()
    time.sleep(1.1)
    token = issuers.provider_signer(JOB, env="p").assertion()
    assert ask(protocol, "token", token).status_code == 200
    require_refusal(ask(protocol, "token", former.assertion()), 401, "invalid_client", "token")


def test_the_metadata_lists_the_methods(protocol):
    """Case L135."""
    document = protocol.get("/.well-known/oauth-authorization-server").json
    for name in ("token", "introspection", "revocation"):
        methods = document[f"{name}_endpoint_auth_methods_supported"]
        assert {"workload_identity", "spiffe_jwt"} <= set(methods)


def test_without_registered_issuers_there_is_no_such_method(start_protocol):
    protocol = start_protocol()
    document = protocol.get("/.well-known/oauth-authorization-server").json
    assert "workload_identity" not in document["token_endpoint_auth_methods_supported"]
    assert "spiffe_jwt" not in document["token_endpoint_auth_methods_supported"]
