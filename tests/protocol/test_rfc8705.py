"""Client certificates behind a proxy: both methods of RFC 8705.

Each request is answered by WSGI and by `serve`'s own way.
"""

import json
import ssl
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from authz_server.endpoints import refusals
from authz_server.operations.event_streams import set_stream
from support.client_certificates import ClientAuthority, header_value, self_signed
from support.mtls import (
    AUTHORITY,
    BOUND,
    BY_METHOD,
    METHODS,
    MTLS,
    NAMES,
    PAYER,
    SELF,
    STRANGER,
    SUBJECT,
    ask,
    cause_of,
    client_of,
    subject,
)
from support.openbao_authority import CertificateAuthority
from support.parties import ACTOR
from support.protocol import ENDPOINTS, facts, require_refusal
from support.scripted_server import ScriptedServer, answer_with
from support.settings_file import ISSUER


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture(params=ENDPOINTS)
def endpoint(request):
    return request.param


@pytest.fixture(autouse=True)
def every_refusal_recorded(monkeypatch):
    """Let each refusal have a record of its own: the tests read the last one."""
    monkeypatch.setattr(refusals, "SINGLE_OF_A_KIND", 1_000)


@pytest.mark.parametrize("name", NAMES)
def test_a_certificate_with_the_registered_name_authenticates(mtls, endpoint, name):
    """RFC 8705, 2.1; Case A16."""
    answer = ask(mtls, endpoint, client_of(name), PAYER)
    assert answer.status_code == 200, answer.text
    other = AUTHORITY.issue("CN=other", names=())
    require_refusal(ask(mtls, endpoint, client_of(name), other), 401, "invalid_client", endpoint)
    assert cause_of(mtls) == "certificate_wrong"


def test_the_methods_are_recorded(mtls, method):
    client_id, key = BY_METHOD[method]
    assert ask(mtls, "token", client_id, key).status_code == 200
    record = json.loads(mtls.audit_trail().splitlines()[-1])
    assert (record["client_id"], record["authentication_method"]) == (client_id, method)


def test_a_registered_certificate_authenticates(mtls, endpoint):
    """RFC 8705, 2.2; Case A16."""
    assert ask(mtls, endpoint, "self-signed", SELF).status_code == 200
    # The proxy reports that the chain leads to no authority, which this method does not need.
    failed = {"X-SSL-Client-Verify": "FAILED:self-signed certificate"}
    assert ask(mtls, endpoint, "self-signed", SELF, headers=failed).status_code == 200
    for other in (self_signed(SUBJECT), self_signed(SUBJECT, key=SELF.key), PAYER):
        answer = ask(mtls, endpoint, "self-signed", other)
        require_refusal(answer, 401, "invalid_client", endpoint)
        assert cause_of(mtls) == "certificate_wrong"


def test_a_registered_key_authenticates_with_any_certificate_of_it(mtls):
    keys = {"jwks": {"keys": [SELF.jwk(with_certificate=False)]}}
    mtls.parties.make_client("by-key", METHODS[1], properties=keys)
    for key in (SELF, self_signed("CN=renewed", key=SELF.key)):
        assert ask(mtls, "token", "by-key", key).status_code == 200
    require_refusal(ask(mtls, "token", "by-key", self_signed()), 401, "invalid_client")


@pytest.mark.parametrize("curve", [ec.SECP224R1(), ec.SECP256K1(), ec.BrainpoolP256R1()])
def test_a_certificate_with_a_key_of_another_curve_is_refused(mtls, endpoint, curve):
    """JWKs have no name for some curves, so that no registered key can have them. Case A16."""
    other = self_signed(SUBJECT, key=ec.generate_private_key(curve))
    for client_id in ("self-signed", "self-signed-bound"):
        answer = ask(mtls, endpoint, client_id, other)
        require_refusal(answer, 401, "invalid_client", endpoint)
        assert cause_of(mtls) == "certificate_wrong"


def test_a_certificate_without_a_verified_chain_is_refused(mtls, endpoint):
    """Case A16."""
    for result in ("FAILED:unable to verify the first certificate", "NONE", ""):
        headers = {"X-SSL-Client-Verify": result}
        answer = ask(
            mtls, endpoint, client_of("tls_client_auth_subject_dn"), PAYER, headers=headers
        )
        require_refusal(answer, 401, "invalid_client", endpoint)
        assert cause_of(mtls) == "certificate_not_verified"


def test_a_subject_that_looks_alike_is_refused(mtls, endpoint):
    """Case A16."""
    client_id = client_of("tls_client_auth_subject_dn")
    for alike in (
        f"{SUBJECT},DC=evil",
        "CN=payer2,O=Ministry of Social Affairs,C=KE",
        "CN=payer\\,O\\=Ministry of Social Affairs,C=KE",
        "CN=p\u0430yer,O=Ministry of Social Affairs,C=KE",
    ):
        answer = ask(mtls, endpoint, client_id, AUTHORITY.issue(alike))
        require_refusal(answer, 401, "invalid_client", endpoint)


def test_an_expired_certificate_is_refused(mtls, endpoint, method):
    """Case A16."""
    expired, early = {"ends": timedelta(minutes=-1)}, {"starts": timedelta(hours=2)}
    for validity in (expired, early):
        if method == METHODS[0]:
            client_id, key = BY_METHOD[method][0], AUTHORITY.issue(SUBJECT, **validity)
        else:
            key = self_signed(**validity)
            properties = {"jwks": {"keys": [key.jwk()]}}
            with mtls.parties.change() as (services, session):
                client_id = "self-signed-old"
                if services.directory.find(client_id):
                    services.clients.delete_client(session, client_id, actor="operator:tester")
            mtls.parties.make_client(client_id, method, properties=properties)
        require_refusal(ask(mtls, endpoint, client_id, key), 401, "invalid_client", endpoint)
        assert cause_of(mtls) == "certificate_expired"


def test_the_certificate_of_a_peer_that_is_not_the_proxy_has_no_effect(mtls, endpoint, method):
    """Case A16."""
    client_id, key = BY_METHOD[method]
    without = ask(mtls, endpoint, client_id, None, peer=STRANGER)
    for headers in ({}, {"X-SSL-Client-Cert": "garbage"}, {"Client-Cert": ":AAAA:"}):
        answer = ask(mtls, endpoint, client_id, key, headers=headers, peer=STRANGER)
        require_refusal(answer, 401, "invalid_client", endpoint)
        assert facts(answer) == facts(without)
        assert cause_of(mtls) == "credentials_missing"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-SSL-Client-Cert": "garbage"},
        {"X-SSL-Client-Cert": "a" * 7_000},
        {"X-SSL-Client-Cert": "%" * 2_000},
        {"Client-Cert": ":AAAA:"},
        {"X-Forwarded-Client-Cert": "Hash=00"},
    ],
)
def test_what_the_proxy_sends_has_to_be_one_certificate(mtls, endpoint, method, headers):
    """Case A16."""
    client_id, key = BY_METHOD[method]
    answer = ask(mtls, endpoint, client_id, key, headers=headers)
    require_refusal(answer, 400, "invalid_request", endpoint)
    assert cause_of(mtls) == "client_certificate_malformed"


def test_a_client_uses_the_method_that_it_is_registered_for(mtls, endpoint, method):
    """Case A7."""
    client_id, key = BY_METHOD[method]
    secret = mtls.parties.add_secret(client_id)
    answer = ask(mtls, endpoint, client_id, key, client_secret=secret.secret)
    require_refusal(answer, 401, "invalid_client", endpoint)
    assert cause_of(mtls) == "method_not_registered"
    # A certificate is not a credential of another client.
    answer = ask(mtls, endpoint, mtls.demo.post.id, key)
    require_refusal(answer, 401, "invalid_client", endpoint)
    assert cause_of(mtls) == "credentials_missing"


def test_an_unknown_client_is_refused_as_any_other(mtls, endpoint):
    """Case A1."""
    unknown = ask(mtls, endpoint, "invented", PAYER)
    require_refusal(unknown, 401, "invalid_client", endpoint)
    wrong = ask(mtls, endpoint, client_of("tls_client_auth_subject_dn"), AUTHORITY.issue("CN=a"))
    assert facts(unknown) == facts(wrong)


def test_a_disabled_client_is_refused(mtls, method):
    """Case A15."""
    client_id, key = BY_METHOD[method]
    for enabled, status in ((False, 401), (True, 200)):
        with mtls.parties.change() as (services, session):
            services.clients.set_enabled(session, client_id, actor="operator:t", enabled=enabled)
        assert ask(mtls, "token", client_id, key).status_code == status


def test_a_secret_beside_a_certificate_authenticates_alone(mtls, endpoint):
    caller = mtls.demo.post
    form = {"client_secret": caller.secret}
    assert ask(mtls, endpoint, caller.id, PAYER, **form).status_code == 200


def test_a_resource_server_introspects_with_its_certificate(mtls):
    name = {"tls_client_auth_san_dns": "payer.ministry.example"}
    mtls.parties.make_resource_server("registry", METHODS[0], properties=name)
    token = mtls.new_token()
    assert ask(mtls, "introspect", "registry", PAYER, token=token).json == {"active": False}
    require_refusal(ask(mtls, "introspect", "registry", SELF), 401, "invalid_client")


def test_a_resource_server_polls_its_events_with_its_certificate(mtls):
    """RFC 8705, 5: the poll of RFC 8936 has an alias, because a certificate authenticates there."""
    metadata = mtls.get("/.well-known/oauth-authorization-server").json
    alias = metadata["mtls_endpoint_aliases"]["security_event_endpoint"]
    assert alias == metadata["security_event_endpoint"].replace(ISSUER, MTLS)
    properties = {"jwks": {"keys": [SELF.jwk()]}}
    mtls.parties.make_resource_server("poller", METHODS[1], properties=properties)
    set_stream(mtls.services, "poller", delivery="poll", actor=ACTOR)
    poll = {"client_id": "poller", "returnImmediately": True}
    path = alias.removeprefix(MTLS)
    answer = mtls.send("POST", path, json=poll, headers=header_value("nginx", SELF.der))
    assert answer.json == {"sets": {}, "moreAvailable": False}
    other = mtls.send("POST", path, json=poll, headers=header_value("nginx", PAYER.der))
    require_refusal(other, 401, "invalid_client")


def test_the_metadata_names_methods_binding_and_aliases(mtls):
    """RFC 8705, 3.3 and 5; Case L135."""
    metadata = mtls.get("/.well-known/oauth-authorization-server").json
    for name in ("token", "introspection", "revocation"):
        assert set(METHODS) < set(metadata[f"{name}_endpoint_auth_methods_supported"])
    assert metadata["tls_client_certificate_bound_access_tokens"] is True
    aliases = metadata["mtls_endpoint_aliases"]
    assert set(aliases) == {
        "token_endpoint",
        "g2p_connect_token_endpoint",
        "introspection_batch_endpoint",
        "introspection_endpoint",
        "revocation_endpoint",
        "security_event_endpoint",
    }
    for name, url in aliases.items():
        assert url == metadata[name].replace(ISSUER, MTLS)


def test_without_a_source_nothing_is_claimed_and_no_header_counts(start_protocol):
    protocol = start_protocol(server={"trusted_proxies": ["127.0.0.1"]})
    metadata = protocol.get("/.well-known/oauth-authorization-server").json
    named = set(metadata["token_endpoint_auth_methods_supported"])
    assert named.isdisjoint(METHODS)
    assert "mtls_endpoint_aliases" not in metadata
    assert "tls_client_certificate_bound_access_tokens" not in metadata
    for headers in (header_value("nginx", PAYER.der), {"Client-Cert": "garbage"}):
        answer = protocol.post("token", protocol.form("token") | protocol.demo.post.form(), headers)
        assert answer.status_code == 200
    bound = protocol.new_client(properties=BOUND)
    require_refusal(protocol.ask("token", bound), 400, "invalid_request")


def test_an_unverified_source_has_no_method_for_authorities(start_protocol):
    protocol = start_protocol(
        server={"trusted_proxies": ["127.0.0.1"]}, client_certificates={"source": "client-cert"}
    )
    metadata = protocol.get("/.well-known/oauth-authorization-server").json
    named = set(metadata["token_endpoint_auth_methods_supported"])
    assert named & set(METHODS) == {METHODS[1]}


def test_a_file_of_authorities_verifies_again(start_protocol, tmp_path):
    """Case A16."""
    ca_file = tmp_path / "clients.pem"
    ca_file.write_bytes(AUTHORITY.pem)
    protocol = start_protocol(
        server={"trusted_proxies": ["127.0.0.1"]},
        client_certificates={"source": "client-cert", "ca_file": str(ca_file)},
    )
    protocol.parties.make_client("payer", METHODS[0], properties=subject())
    for key, status in ((PAYER, 200), (ClientAuthority().issue(SUBJECT), 401), (SELF, 401)):
        form = protocol.form("token") | {"client_id": "payer"}
        answer = protocol.post("token", form, header_value("client-cert", key.der))
        assert answer.status_code == status


def test_a_certificate_is_found_in_published_keys(start_protocol, tmp_path):
    """RFC 8705, 2.2; Case A16."""
    authority = CertificateAuthority(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.certify("localhost"))
    published = {"/jwks": {"keys": [SELF.jwk()]}, "/other": "nothing"}

    def answer(connection, request):
        document = published[request.split(b" ")[1].decode()]
        return answer_with(json.dumps(document).encode())(connection, request)

    with ScriptedServer(answer, tls) as server:
        protocol = start_protocol(
            server={"trusted_proxies": ["127.0.0.1"]},
            client_certificates={"source": "nginx"},
            outbound={
                "allowed_networks": ["127.0.0.0/8"],
                "ca_file": str(authority.certificate_path),
            },
        )
        for client_id, path in (("remote", "/jwks"), ("silent", "/other")):
            keys = {"jwks_uri": server.address + path}
            protocol.parties.make_client(client_id, METHODS[1], properties=keys)
        for at in ENDPOINTS:
            assert ask(protocol, at, "remote", SELF).status_code == 200
            require_refusal(ask(protocol, at, "remote", PAYER), 401, "invalid_client", at)
            assert cause_of(protocol) == "certificate_wrong"
            require_refusal(ask(protocol, at, "silent", SELF), 401, "invalid_client", at)
            assert cause_of(protocol) == "certificate_keys_unavailable"
