"""An application behind a proxy that passes client certificates as nginx does, and its clients."""

import json

import pytest

from support.client_certificates import (
    ClientAuthority,
    ClientKey,
    all_names,
    header_value,
    self_signed,
)
from support.protocol import running_protocol

AUTHORITY = ClientAuthority()
SUBJECT = "CN=payer,O=Ministry of Social Affairs,C=KE"
PAYER, SELF = AUTHORITY.issue(SUBJECT, names=all_names()), self_signed(SUBJECT)
MTLS = "https://mtls.authz.example"
STRANGER = "203.0.113.9"
METHODS = ("tls_client_auth", "self_signed_tls_client_auth")
NAMES = {
    "tls_client_auth_subject_dn": SUBJECT,
    "tls_client_auth_san_dns": "payer.ministry.example",
    "tls_client_auth_san_uri": "spiffe://ministry.example/payer",
    "tls_client_auth_san_ip": "2001:db8::17",
    "tls_client_auth_san_email": "Payer@ministry.example",
}
BOUND = {"tls_client_certificate_bound_access_tokens": True}


@pytest.fixture(scope="module")
def mtls(module_database_url, tmp_path_factory):
    """An application behind a proxy, with a client for each method and name."""
    with running_protocol(
        tmp_path_factory.mktemp("mtls"),
        module_database_url,
        has_twin=True,
        server={"trusted_proxies": ["127.0.0.1"]},
        client_certificates={"source": "nginx", "mtls_base_url": MTLS},
    ) as protocol:
        make = protocol.parties.make_client
        for name, value in NAMES.items():
            make(client_of(name), METHODS[0], properties={name: value})
        make("bound-pki", METHODS[0], properties={**subject(), **BOUND})
        for suffix, properties in (("", {}), ("-bound", BOUND)):
            keys = {"jwks": {"keys": [SELF.jwk()]}}
            make(f"self-signed{suffix}", METHODS[1], properties=keys | properties)
        protocol.bound_post = make("bound-post", "client_secret_post", properties=BOUND)
        yield protocol


def subject() -> dict[str, str]:
    """Return the property with the subject."""
    return {"tls_client_auth_subject_dn": SUBJECT}


def client_of(name: str) -> str:
    """Return the id of the client that is registered by a name."""
    return "by-" + name.removeprefix("tls_client_auth_").replace("_", "-")


BY_METHOD = {
    METHODS[0]: (client_of("tls_client_auth_subject_dn"), PAYER),
    METHODS[1]: ("self-signed", SELF),
}


def ask(  # noqa: PLR0913 - the parts of a request
    protocol, endpoint, client_id, client: ClientKey | None, *, headers=None, peer=None, **form
):
    """Send a form with a client id, through the proxy if there is no other peer."""
    sent = {} if client is None else header_value("nginx", client.der)
    options = {"environ_overrides": {"REMOTE_ADDR": peer}} if peer else {}
    fields = protocol.form(endpoint) | {"client_id": client_id} | form
    fields = {name: value for name, value in fields.items() if value is not None}
    return protocol.post(endpoint, fields, sent | (headers or {}), **options)


@pytest.fixture
def one_server(mtls):
    """Leaves the twin out, which would refuse what the first server has accepted once."""
    twin, mtls.client.twin = mtls.client.twin, None
    yield
    mtls.client.twin = twin


def cause_of(protocol) -> str:
    """Return the recorded reason of the last refusal."""
    return json.loads(protocol.audit_trail().splitlines()[-1])["reason"]
