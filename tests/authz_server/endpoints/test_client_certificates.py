"""The client's certificate: which peer is believed, and what each proxy's header may hold."""

import time
from base64 import b64encode
from datetime import timedelta
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from authz_server.clients.certificates import ClientCertificate
from authz_server.endpoints.client_certificates import certificate_reader
from authz_server.endpoints.request import Request
from authz_server.errors import OAuthError
from authz_server.settings import ClientCertificateSettings
from support.client_certificates import (
    ClientAuthority,
    all_names,
    byte_sequence,
    escaped_pem,
    header_value,
    self_signed,
)

PROXY, OTHER_PROXY, STRANGER = "10.0.0.1", "10.0.0.2", "203.0.113.9"
SOURCES = ("client-cert", "nginx", "haproxy", "envoy")
HEADERS = {
    "client-cert": "client-cert",
    "nginx": "x-ssl-client-cert",
    "haproxy": "x-ssl-client-cert",
    "envoy": "x-forwarded-client-cert",
}
CLIENT = self_signed(names=all_names())


def settings(source: str, **values: object) -> ClientCertificateSettings:
    return ClientCertificateSettings(source=source, **values)


def read(
    source: str, headers: dict[str, str], peer: str = PROXY, **values: object
) -> ClientCertificate | None:
    reader = certificate_reader(settings(source, **values), [PROXY, OTHER_PROXY])
    lower = {name.lower(): value for name, value in headers.items()}
    return reader.read(Request("POST", "/oauth2/token", headers=lower, peer=peer))


def refuse(source: str, headers: dict[str, str], **values: object) -> str:
    with pytest.raises(OAuthError) as refusal:
        read(source, headers, **values)
    assert (refusal.value.reason, refusal.value.status_code) == (
        "client_certificate_malformed",
        400,
    )
    assert refusal.value.error == "invalid_request"
    return refusal.value.detail


@pytest.mark.parametrize("source", SOURCES)
def test_a_trusted_proxys_certificate_is_read(source):
    """Case A16."""
    found = read(source, header_value(source, CLIENT.der))
    assert found.der == CLIENT.der
    assert found.subject == "CN=payer,O=Ministry of Social Affairs,C=KE"
    assert found.dns_names == {"payer.ministry.example"}
    assert found.uris == {"spiffe://ministry.example/payer"}
    assert found.ip_addresses == {"2001:db8::17"}
    assert found.emails == {"Payer@ministry.example"}
    assert found.is_in_force(time.time())
    assert not found.is_in_force(time.time() + 2 * 86_400)


@pytest.mark.parametrize("source", SOURCES)
def test_no_certificate_is_none(source):
    assert read(source, {}) is None
    assert read(source, {HEADERS[source]: ""}) is None


@pytest.mark.parametrize("source", SOURCES)
def test_another_peers_header_has_no_effect_whatever_it_holds(source):
    """Case A16."""
    for value in (*header_value(source, CLIENT.der).values(), "garbage", "a" * 65_536):
        for peer in (STRANGER, "", "proxy.example"):
            assert read(source, {HEADERS[source]: value}, peer) is None
    # One of the trusted proxies alone passes certificates.
    assert read(source, header_value(source, CLIENT.der), OTHER_PROXY, proxies=(PROXY,)) is None
    assert read(source, header_value(source, CLIENT.der), PROXY, proxies=(PROXY,)) is not None


@pytest.mark.parametrize("source", SOURCES)
def test_a_name_with_an_underscore_is_another_header(source):
    """Case I100."""
    name = HEADERS[source].replace("-", "_")
    assert read(source, {name: next(iter(header_value(source, CLIENT.der).values()))}) is None


@pytest.mark.parametrize("source", SOURCES)
def test_a_repeated_header_is_refused(source):
    """Case A16."""
    header = HEADERS[source]
    value = header_value(source, CLIENT.der)
    lower = {name.lower(): each for name, each in value.items()}
    other = header_value(source, self_signed().der)
    second = {name.lower(): each for name, each in other.items()}[header]
    # As the server joins repeated fields.
    refuse(source, lower | {header: f"{lower[header]}, {second}"})


@pytest.mark.parametrize("source", SOURCES)
def test_headers_of_two_sources_are_refused(source):
    """Case A16."""
    for other in SOURCES:
        if HEADERS[other] != HEADERS[source]:
            both = header_value(source, CLIENT.der) | header_value(other, CLIENT.der)
            assert refuse(source, both) == "a header of another source"
            # Also alone: the proxy and the settings disagree, or a client wrote it.
            refuse(source, header_value(other, CLIENT.der))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "value",
    [
        "garbage",
        "a" * 65_536,
        "=" * 8_192,
        "%" * 8_192,
        "\xff\xfe",
        ":::",
        "::",
        "(null)",
        quote("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"),
        quote("-----BEGIN CERTIFICATE-----\n" * 2_000),
        b64encode(b"\x30\x82" * 3_000).decode(),
        byte_sequence(b"\x30\x80" * 3_000),
        byte_sequence(CLIENT.der + b"\0"),
        byte_sequence(CLIENT.der[:-1]),
        b64encode(CLIENT.der).decode() + "!",
        escaped_pem(CLIENT.der).replace("%0A", "%0"),
        escaped_pem(CLIENT.der) + escaped_pem(CLIENT.der),
        f'Cert="{escaped_pem(CLIENT.der)}',
        f'Cert="{escaped_pem(CLIENT.der)}";',
        f'Cert="{escaped_pem(CLIENT.der)}";Cert="{escaped_pem(CLIENT.der)}"',
        f'Hash={"0" * 64};Cert="{escaped_pem(CLIENT.der)}"',
        'Hash=00;Subject="CN=payer"',
        "By=" + "a=b;" * 2_000,
        '"' * 8_000,
    ],
)
def test_garbage_is_refused_soon(source, value):
    """Case A16."""
    began = time.process_time()
    refuse(source, {HEADERS[source]: value})
    assert time.process_time() - began < 0.2


@given(
    value=st.one_of(st.text(max_size=300), st.text(alphabet='Cert=";,:%-\\2DBEGIN ', max_size=99))
)
@pytest.mark.parametrize("source", SOURCES)
def test_any_text_is_refused_or_ignored(source, value):
    try:
        assert read(source, {HEADERS[source]: value}) is None
    except OAuthError as refusal:
        if refusal.reason != "client_certificate_malformed":
            raise


def test_a_chain_belongs_to_a_certificate():
    """RFC 9440, 2.3."""
    root = ClientAuthority()
    client = ClientAuthority(root).issue()
    chain = [each.public_bytes(Encoding.DER) for each in client.issuers]
    found = read("client-cert", header_value("client-cert", client.der, chain))
    assert found.chain == tuple(chain)
    header = header_value("client-cert", client.der, chain)["Client-Cert-Chain"]
    assert refuse("client-cert", {"Client-Cert-Chain": header}) == "a chain without a certificate"
    refuse("client-cert", {"Client-Cert": byte_sequence(client.der), "Client-Cert-Chain": "a"})
    refuse(
        "client-cert",
        {
            "Client-Cert": byte_sequence(client.der),
            "Client-Cert-Chain": ", ".join([header] * 9),
        },
    )


def test_the_last_element_of_envoy_counts():
    mine, other = CLIENT.der, self_signed().der
    first = f'Cert="{escaped_pem(other)}";URI=spiffe://a'
    last = header_value("envoy", mine)["X-Forwarded-Client-Cert"]
    assert read("envoy", {"x-forwarded-client-cert": f"{first},{last}"}).der == mine
    # An open quotation mark of a client does not swallow the proxy's element.
    for injected in ('Cert="', f'Cert="{escaped_pem(other)}";X="', 'Subject="\\'):
        refuse("envoy", {"x-forwarded-client-cert": f"{injected},{last}"})
    chained = header_value("envoy", mine, [other])
    assert read("envoy", chained).chain == (other,)


def test_the_proxy_has_to_report_success():
    """Case A16."""
    nginx, haproxy = header_value("nginx", CLIENT.der), header_value("haproxy", CLIENT.der)
    assert read("nginx", nginx).is_verified
    assert read("haproxy", haproxy).is_verified
    for result in ("", "FAILED:self-signed certificate", "NONE", "0", "success", "SUCCESS, NONE"):
        assert not read("nginx", nginx | {"X-SSL-Client-Verify": result}).is_verified
    for result in ("", "18", "SUCCESS", "00", "-1", "0, 0"):
        assert not read("haproxy", haproxy | {"X-SSL-Client-Verify": result}).is_verified
    assert not read("nginx", {"x-ssl-client-cert": nginx["X-SSL-Client-Cert"]}).is_verified


def test_a_proxy_that_reports_nothing_has_to_be_named_as_verifying():
    headers = header_value("client-cert", CLIENT.der)
    assert not settings("client-cert").can_be_verified
    assert not read("client-cert", headers).is_verified
    assert read("client-cert", headers, front_verifies=True).is_verified
    reported = {"verify_header": "x-client-verify"}
    assert settings("client-cert", **reported).can_be_verified
    assert not read("client-cert", headers, **reported, front_verifies=True).is_verified
    sent = headers | {"X-Client-Verify": "SUCCESS"}
    assert read("client-cert", sent, **reported).is_verified


def test_the_header_can_have_another_name():
    value = header_value("nginx", CLIENT.der)["X-SSL-Client-Cert"]
    renamed = {"certificate_header": "x-amzn-mtls-clientcert-leaf"}
    sent = {"x-amzn-mtls-clientcert-leaf": value}
    assert read("nginx", sent, **renamed).der == CLIENT.der
    assert not read("nginx", sent, **renamed).is_verified
    assert read("nginx", sent, **renamed, front_verifies=True).is_verified
    refuse("nginx", {"x-ssl-client-cert": value}, **renamed)


def test_the_listeners_own_certificate_counts_and_no_header():
    reader = certificate_reader(settings("listener", ca_file="/ca.pem"), [PROXY])
    headers = {name.lower(): value for name, value in header_value("nginx", CLIENT.der).items()}
    request = Request("POST", "/", headers=headers, peer=PROXY)
    assert reader.read(request) is None
    request.peer_certificate = CLIENT.der
    assert reader.read(request).der == CLIENT.der
    assert reader.read(request).is_verified
    request.peer_certificate = b"\x30\0"
    with pytest.raises(OAuthError, match="certificate"):
        reader.read(request)


def test_without_a_source_there_is_no_reader():
    assert certificate_reader(settings("off"), [PROXY]) is None


def test_a_validity_that_begins_a_little_later_counts_within_the_skew():
    found = read("nginx", header_value("nginx", self_signed(starts=timedelta(seconds=8)).der))
    assert not found.is_in_force(time.time())
    assert found.is_in_force(time.time(), 10)
