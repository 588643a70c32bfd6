"""Every method over HTTPS: nginx and HAProxy as deploy/ configures them, and `serve` itself."""

import socket
import ssl
import time
import warnings
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial

import httpx
import pytest

from authz_server.clients.certificate_parser import thumbprint_of
from authz_server.settings import load_settings
from support.assertions import make_signer
from support.claims import claims_of
from support.client_certificates import (
    ClientAuthority,
    byte_sequence,
    escaped_pem,
    header_value,
    self_signed,
)
from support.databases import copied_database
from support.dpop import ProofKey
from support.live_server import LiveServer
from support.openbao_authority import CertificateAuthority
from support.parties import Parties, demo_with_keys
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings, write_shared_secrets
from support.tls_front import TlsFront, client_context

ROOT = ClientAuthority()
AUTHORITY = ClientAuthority(ROOT)
SUBJECT = "CN=payer,O=Ministry of Social Affairs,C=KE"
PAYER, SELF = AUTHORITY.issue(SUBJECT), self_signed(SUBJECT)
BOUND = {"tls_client_certificate_bound_access_tokens": True}
NONE_KEPT = httpx.Limits(max_keepalive_connections=0)
CLIENTS = {"payer": PAYER, "self-signed": SELF}
ENDPOINTS = {
    "token": "/oauth2/token",
    "g2p": "/oauth2/client/token",
    "introspect": "/oauth2/introspect",
    "revoke": "/oauth2/revoke",
}


@contextmanager
def running(directory, database_url, *, workers=1, **overrides):
    """A server with a client for each method, whose tokens are bound to their certificates."""
    write = partial(write_overrides, directory, database_url)
    write_shared_secrets(directory)
    parties = Parties(load_settings(write(**overrides)), SecretsWatch())
    source = overrides["client_certificates"]["source"]
    demo = demo_with_keys(parties, database_url, directory, overrides)
    with parties.together():
        made = demo, *make_clients(parties, self_signed=source != "listener")
    with LiveServer(write, directory, workers=workers, **overrides) as server:
        yield server, made


def make_clients(parties, *, self_signed):
    """Make further clients; return the bound one and the signers."""
    parties.make_client(
        "payer", "tls_client_auth", properties={"tls_client_auth_subject_dn": SUBJECT, **BOUND}
    )
    if self_signed:
        keys = {"jwks": {"keys": [SELF.jwk()]}}
        parties.make_client("self-signed", "self_signed_tls_client_auth", properties=keys | BOUND)
    bound = parties.make_client("by-secret", properties=BOUND)
    signers = [make_signer(parties, f"signs-{alg}", time.time, alg) for alg in ("ES256", "HS256")]
    return bound, signers


def write_overrides(directory, database_url, **overrides):
    return write_settings(directory, database_url, overrides)


class Site:
    """A server behind a front, and requests to it."""

    def __init__(self, front, parties, contexts):
        self._front = front
        self.port = int(front.rpartition(":")[2])
        self.demo, self.bound, self.signers = parties
        self._contexts = contexts
        self._senders = {}

    def sender(self, client):
        """Return what sends with a client's certificate, each request on a new connection."""
        if id(client) not in self._senders:
            sender = httpx.Client(verify=self._contexts(client), limits=NONE_KEPT)
            # With the client, so that its id is not another's later.
            self._senders[id(client)] = client, sender
        return self._senders[id(client)][1]

    def metadata(self):
        """Fetch the metadata."""
        path = "/.well-known/oauth-authorization-server"
        return self.sender(None).get(f"{self._front}{path}").json()

    def ask(self, endpoint, client_id, client, headers=None, transport=None, **form):
        """Send a form over TLS with a client's certificate, or with none."""
        fields = {"token": "invented"}
        if endpoint in ("token", "g2p"):
            fields = {"grant_type": "client_credentials", "scope": "mapper/link"}
        fields |= ({"client_id": client_id} if client_id else {}) | form
        url = self._front + ENDPOINTS[endpoint]
        if transport is None:
            return self.sender(client).post(url, data=fields, headers=headers)
        with httpx.Client(transport=transport) as sender:
            return sender.post(url, data=fields, headers=headers)


@pytest.fixture(
    scope="module",
    # Every pair of front, database and number of processes.
    params=[
        ("nginx", "sqlite", 1),
        ("nginx", "postgresql", 3),
        ("haproxy", "sqlite", 3),
        ("haproxy", "postgresql", 1),
    ],
    ids=lambda param: "-".join(map(str, param)),
)
def site(request, tmp_path_factory):
    """A server of one process or two on each database behind each front."""
    kind, dialect, workers = request.param
    directory = tmp_path_factory.mktemp("front")
    overrides = {
        "server": {"trusted_proxies": ["127.0.0.1"]},
        "client_certificates": {"source": kind},
    }
    with ExitStack() as opened:
        url = opened.enter_context(copied_database(request, dialect, directory))
        server, parties = opened.enter_context(
            running(directory, url, workers=workers, **overrides)
        )
        front = opened.enter_context(TlsFront(kind, server.port, directory, ROOT.pem))
        yield Site(front.base_url, parties, lambda client: front.context(client, directory))


def test_secrets_and_assertions_over_https(site):
    """Cases A3, D51."""
    for endpoint in ENDPOINTS:
        for caller in (*site.demo.clients.values(), *site.signers):
            form = caller.form()
            client_id = form.pop("client_id", None)
            statuses = [
                site.ask(endpoint, client_id, None, caller.headers(), **form).status_code
                for _ in range(2)
            ]
            assert statuses == [200, 401 if caller in site.signers else 200], (endpoint, caller.id)


@pytest.mark.parametrize("endpoint", ["token", "g2p"])
def test_a_proof_binds_a_token_over_https(site, endpoint):
    """Case A16."""
    key = ProofKey()
    caller = site.signers[0]
    proof = {"DPoP": key.prove(time.time(), ENDPOINTS[endpoint])}
    token = site.ask(endpoint, None, None, proof, **caller.form()).json()["access_token"]
    assert claims_of(token)["cnf"] == {"jkt": key.thumbprint}
    described = site.ask("introspect", None, None, site.demo.mapper.headers(), token=token).json()
    assert described["cnf"] == {"jkt": key.thumbprint}
    elsewhere = {"DPoP": key.prove(time.time(), "/elsewhere")}
    for refused in (proof, elsewhere):
        answer = site.ask(endpoint, None, None, refused, **caller.form())
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")


@pytest.mark.parametrize("client_id", CLIENTS)
def test_both_methods_and_bound_tokens_over_https(site, client_id):
    """Case A16."""
    key = CLIENTS[client_id]
    for endpoint in ENDPOINTS:
        answer = site.ask(endpoint, client_id, key)
        assert answer.status_code == 200, (endpoint, answer.text)
    token = site.ask("token", client_id, key).json()["access_token"]
    expected = {"x5t#S256": thumbprint_of(key.der)}
    assert claims_of(token)["cnf"] == expected
    mapper = site.demo.mapper.headers()
    described = site.ask("introspect", None, None, mapper, token=token).json()
    assert (described["active"], described["cnf"]) == (True, expected)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_another_certificate_and_none_are_refused(site, endpoint):
    """Case A16."""
    others = {
        "payer": (
            None,
            self_signed(SUBJECT),
            ClientAuthority().issue(SUBJECT),
            AUTHORITY.issue("CN=payer,O=Ministry of Social Affairs,C=UG"),
            SELF,
        ),
        "self-signed": (None, self_signed(SUBJECT), PAYER),
    }
    for client_id, keys in others.items():
        for key in keys:
            answer = site.ask(endpoint, client_id, key)
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_an_expired_certificate_is_refused(site):
    """Case A16."""
    expired = AUTHORITY.issue(SUBJECT, ends=timedelta(minutes=-1))
    # nginx refuses it itself, HAProxy passes its verdict.
    assert site.ask("token", "payer", expired).status_code in (400, 401)


def test_no_header_of_a_client_is_taken_for_the_fronts(site):
    """Case A16."""
    for kind in ("client-cert", "nginx", "haproxy", "envoy"):
        for key in (None, self_signed()):
            headers = header_value(kind, PAYER.der)
            spelled = {name.replace("-", "_"): value for name, value in headers.items()}
            for sent in (headers, spelled, {"X-SSL-Client-Verify": "SUCCESS"}):
                assert site.ask("token", "payer", key, sent).status_code == 401, (kind, key)
        # Beside the client's own certificate they change nothing either.
        assert site.ask("token", "payer", PAYER, header_value(kind, SELF.der)).status_code == 200


def test_a_client_of_bound_tokens_needs_its_certificate(site):
    """RFC 8705, 3.4."""
    secret = {"client_secret": site.bound.secret}
    for key in (PAYER, SELF):
        token = site.ask("token", site.bound.id, key, **secret).json()["access_token"]
        assert claims_of(token)["cnf"] == {"x5t#S256": thumbprint_of(key.der)}
    answer = site.ask("token", site.bound.id, None, **secret)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


@pytest.fixture(scope="module")
def plain(request, tmp_path_factory):
    """`serve` behind a proxy that the tests play, by RFC 9440."""
    directory = tmp_path_factory.mktemp("plain")
    overrides = {
        "server": {"trusted_proxies": ["127.0.0.1"]},
        "client_certificates": {"source": "client-cert", "front_verifies": True},
    }
    with (
        copied_database(request, "sqlite", directory) as url,
        running(directory, url, **overrides) as (server, parties),
    ):
        yield Site(server.base_url, parties, lambda _client: True)


def test_hostile_headers_of_a_trusted_proxy(plain):
    """Case A16."""
    mine, other = byte_sequence(PAYER.der), byte_sequence(SELF.der)
    expected = [
        ([("Client-Cert", mine)], 200),
        # Another header to `serve`, and none that counts.
        ([("Client-Cert", mine), ("Client_Cert", other)], 200),
        ([("Client_Cert", mine)], 401),
        ([("Client-Cert", mine), ("Client-Cert", mine)], 400),
        ([("Client-Cert", other), ("client-cert", mine)], 400),
        ([("Client-Cert", mine), ("X-SSL-Client-Cert", escaped_pem(PAYER.der))], 400),
        ([("Client-Cert", mine), ("Client-Cert-Chain", "garbage")], 400),
        ([("Client-Cert-Chain", mine)], 400),
        ([("Client-Cert", "garbage")], 400),
        ([("Client-Cert", f":{'A' * 7_000}:")], 400),
        ([("Client-Cert", f":{'A' * 65_536}:")], 431),
        ([("Client-Cert", "")], 401),
    ]
    for headers, status in expected:
        answer = plain.ask("token", "payer", None, headers)
        assert answer.status_code == status, (headers[0][0], status, answer.text)
    # The server goes on.
    assert plain.ask("token", "payer", None, expected[0][0]).status_code == 200


def test_a_peer_that_is_not_the_proxy(plain):
    """Case A16."""
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    for value in (byte_sequence(PAYER.der), "garbage"):
        headers = [("Client-Cert", value), ("X-Forwarded-For", "127.0.0.1")]
        answer = plain.ask("token", "payer", None, headers, transport=transport)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    secret = {"client_secret": plain.demo.post.secret}
    headers = [("Client-Cert", "garbage")]
    answer = plain.ask("token", plain.demo.post.id, None, headers, transport=transport, **secret)
    assert answer.status_code == 200


@pytest.fixture(scope="module")
def listener(request, tmp_path_factory):
    """`serve` with TLS of its own."""
    directory = tmp_path_factory.mktemp("listener")
    authority = CertificateAuthority(directory)
    certificate, key = authority.certify("localhost")
    ca_file = directory / "clients.pem"
    ca_file.write_bytes(ROOT.pem)
    overrides = {
        "server": {"tls_certificate": str(certificate), "tls_private_key": str(key)},
        "client_certificates": {"source": "listener", "ca_file": str(ca_file)},
    }
    with (
        copied_database(request, "sqlite", directory) as url,
        running(directory, url, **overrides) as (server, parties),
    ):
        yield Site(
            server.base_url,
            parties,
            lambda client: client_context(authority.certificate_path, client, directory),
        )


def test_serve_knows_the_certificate_of_its_own_connections(listener):
    """Case A16."""
    for endpoint in ENDPOINTS:
        answer = listener.ask(endpoint, "payer", PAYER)
        assert answer.status_code == 200, (endpoint, answer.text)
    claims = claims_of(listener.ask("token", "payer", PAYER).json()["access_token"])
    assert claims["cnf"] == {"x5t#S256": thumbprint_of(PAYER.der)}
    for key in (None, AUTHORITY.issue("CN=other")):
        for headers in (
            {},
            header_value("client-cert", PAYER.der),
            header_value("nginx", PAYER.der),
        ):
            assert listener.ask("token", "payer", key, headers).status_code == 401
    named = listener.metadata()["token_endpoint_auth_methods_supported"]
    assert "tls_client_auth" in named
    assert "self_signed_tls_client_auth" not in named
    # The handshake fails for a certificate of no known authority.
    for stranger in (SELF, ClientAuthority().issue(SUBJECT)):
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            listener.ask("token", "payer", stranger)


def handshake(port: int, version: ssl.TLSVersion, ciphers: str = "ALL:@SECLEVEL=0") -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers(ciphers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        try:
            with context.wrap_socket(plain) as connection:
                return connection.version()
        except (ssl.SSLError, ConnectionError):
            return None


def test_tls_begins_at_version_1_2(listener):
    """Case I107."""
    versions = ssl.TLSVersion
    assert handshake(listener.port, versions.TLSv1_3) == "TLSv1.3"
    assert handshake(listener.port, versions.TLSv1_2) == "TLSv1.2"
    assert handshake(listener.port, versions.TLSv1_1) is None
    assert handshake(listener.port, versions.TLSv1) is None
    url = f"http://127.0.0.1:{listener.port}/.well-known/oauth-authorization-server"
    with pytest.raises(httpx.TransportError):
        httpx.get(url)


def require_recommended_suites(port: int) -> None:
    version = ssl.TLSVersion.TLSv1_2
    for suite in ("AES128-GCM-SHA256", "AES256-GCM-SHA384"):
        assert handshake(port, version, f"ECDHE-ECDSA-{suite}") == "TLSv1.2"
    assert handshake(port, version, "ALL:!ECDHE+AESGCM:@SECLEVEL=0") is None
    assert handshake(port, version, "ECDHE-ECDSA-CHACHA20-POLY1305") is None


def test_tls_1_2_of_serve_has_only_the_recommended_cipher_suites(listener):
    """FAPI 2.0, 5.2.2; RFC 9325, 4.2."""
    require_recommended_suites(listener.port)


def test_tls_1_2_of_each_front_has_only_the_recommended_cipher_suites(site):
    """FAPI 2.0, 5.2.2; RFC 9325, 4.2."""
    require_recommended_suites(site.port)
