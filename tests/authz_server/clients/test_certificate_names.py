"""The name that a client is registered for, and the certificates that have it."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authz_server.clients.certificate_chains import ChainVerifier
from authz_server.clients.certificate_names import NAMES, is_named, require_name
from authz_server.clients.certificate_parser import (
    key_thumbprint_of,
    parse_certificate,
    parse_name,
)
from authz_server.clients.certificates import ClientCertificate
from authz_server.clients.properties import ClientProperties, check_properties, merge_properties
from authz_server.errors import InvalidChangeError
from keys.jose.foreign import parse_key_set
from support.client_certificates import ClientAuthority, all_names, self_signed

SUBJECT = "CN=payer,O=Ministry of Social Affairs,C=KE"


def certificate(subject: object = SUBJECT, **options: object) -> ClientCertificate:
    return parse_certificate(self_signed(subject, **options).der)


def named(found: ClientCertificate, **properties: str) -> bool:
    stored = merge_properties({}, check_properties(properties))
    return is_named(found, ClientProperties(**stored))


def has_subject(found: ClientCertificate, text: str) -> bool:
    return named(found, tls_client_auth_subject_dn=text)


@pytest.mark.parametrize(
    "text",
    [
        SUBJECT,
        "cn=payer,o=Ministry of Social Affairs,c=KE",
        "CN=PAYER,O=ministry of SOCIAL affairs,C=ke",
        "CN=payer,O=Ministry  of   Social Affairs,C=KE",
        "2.5.4.3=payer,2.5.4.10=Ministry of Social Affairs,2.5.4.6=KE",
        "CN=p\\61yer,O=Ministry of Social Affairs,C=KE",
        "CN=\\70\\61\\79\\65\\72,O=Ministry\\20of Social Affairs,C=KE",
    ],
)
def test_a_subject_is_compared_by_type_and_value(text):
    """RFC 4517, 4.2.15; Case A16."""
    assert has_subject(certificate(), text)


@pytest.mark.parametrize(
    "subject",
    [
        "CN=payer2,O=Ministry of Social Affairs,C=KE",
        "CN=payer,O=Ministry of Social Affairs",
        "CN=payer,O=Ministry of Social Affairs,C=KE,DC=evil",
        "DC=evil,CN=payer,O=Ministry of Social Affairs,C=KE",
        "C=KE,O=Ministry of Social Affairs,CN=payer",
        "CN=payer\\,O\\=Ministry of Social Affairs,C=KE",
        "CN=payer+O=Ministry of Social Affairs,C=KE",
        "OU=payer,O=Ministry of Social Affairs,C=KE",
        "CN=payer,O=MinistryofSocialAffairs,C=KE",
        "CN=payer,O=Ministry of Social Affairs,C=KE,C=KE",
        # Cyrillic, full width, a joiner, a sign that folds to a letter, a soft hyphen.
        "CN=p\u0430yer,O=Ministry of Social Affairs,C=KE",
        "CN=\uff50ayer,O=Ministry of Social Affairs,C=KE",
        "CN=pay\u200der,O=Ministry of Social Affairs,C=KE",
        "CN=pay\u00ader,O=Ministry of Social Affairs,C=KE",
        "CN=payer,O=Ministry of Social Affair\u017f,C=KE",
    ],
)
def test_a_subject_that_looks_alike_is_another_one(subject):
    """Case A16."""
    assert not has_subject(certificate(subject), SUBJECT)


def test_a_null_byte_and_other_controls_are_part_of_the_value():
    """Case A16."""
    for control in ("\0", "\n", "\x7f"):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"payer{control}")])
        assert not has_subject(certificate(name), "CN=payer")


@pytest.mark.parametrize("value", ["a=#b", "=#", "a,b=#c", "a+b=#c", " #a ", '"a" <b>; c\\'])
def test_the_subject_as_the_server_shows_it_can_be_registered(value):
    """RFC 4514, 2.4: an equals sign, and a number sign after it, stand in a value as they are."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value)])
    assert has_subject(certificate(name), certificate(name).subject)


def test_types_of_one_rdn_have_no_order():
    found = certificate("CN=payer+UID=17,C=KE")
    assert has_subject(found, "UID=17+CN=payer,C=KE")
    assert not has_subject(found, "UID=17,CN=payer,C=KE")


def test_letters_beyond_ascii_have_to_be_the_same():
    found = certificate("CN=S\u00e9n\u00e9gal")
    # The same character composed of two.
    assert has_subject(found, "CN=s\u00e9ne\u0301gal")
    assert not has_subject(found, "CN=S\u00c9N\u00c9GAL")
    assert not has_subject(certificate("CN=Weiss"), "CN=Wei\u00df")


def test_values_of_an_unknown_type_are_compared_exactly():
    name = x509.Name([x509.NameAttribute(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), "Payer")])
    assert has_subject(certificate(name), "1.3.6.1.4.1.99999.1=Payer")
    assert not has_subject(certificate(name), "1.3.6.1.4.1.99999.1=payer")


@pytest.mark.parametrize(
    ("name", "value", "others"),
    [
        (
            "tls_client_auth_san_dns",
            "payer.ministry.example",
            ("ministry.example", "a.payer.ministry.example", "payer.ministry.example.evil.example"),
        ),
        (
            "tls_client_auth_san_uri",
            "spiffe://ministry.example/payer",
            ("spiffe://ministry.example/payer/", "spiffe://Ministry.example/payer"),
        ),
        ("tls_client_auth_san_ip", "2001:db8:0:0::17", ("2001:db8::18", "192.0.2.1")),
        (
            "tls_client_auth_san_email",
            "Payer@MINISTRY.example",
            ("payer@ministry.example", "Payer@example"),
        ),
    ],
)
def test_one_entry_of_the_alternative_name_has_to_be_the_registered_one(name, value, others):
    """RFC 8705, 2.1.2; Case A16."""
    found = certificate("CN=ministry.example", names=all_names())
    assert named(found, **{name: value})
    for other in others:
        assert not named(found, **{name: other}), other
    # Neither the subject nor an entry of another kind counts.
    assert not named(certificate("CN=payer.ministry.example"), **{name: value})


def test_a_wildcard_matches_nothing():
    found = certificate(names=[x509.DNSName("*.ministry.example")])
    assert not named(found, tls_client_auth_san_dns="payer.ministry.example")


def test_a_client_without_a_name_or_with_two_has_no_certificate():
    both = ClientProperties(tls_client_auth_subject_dn=SUBJECT, tls_client_auth_san_dns="a.example")
    assert not is_named(certificate(), both)
    assert not is_named(certificate(), ClientProperties())
    assert not is_named(certificate(), ClientProperties(tls_client_auth_subject_dn="CN="))


def test_exactly_one_name_is_registered():
    """RFC 8705, 2.1.2."""
    changes = check_properties({"tls_client_auth_san_ip": "192.0.2.1"})
    with pytest.raises(InvalidChangeError, match="only one of"):
        merge_properties({"tls_client_auth_subject_dn": SUBJECT}, changes)
    merge_properties({"tls_client_auth_subject_dn": SUBJECT}, {**changes, NAMES[0]: None})
    with pytest.raises(InvalidChangeError, match="exactly one of"):
        require_name({"jwks_uri": "https://a.example"})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "tls_client_auth_subject_dn",
            (
                "",
                "payer",
                "CN=payer, C=KE",
                "CN=payer,",
                "CN=#0C0161",
                "C=KE+CN=#0C0161",
                "XYZ=a",
                "C=KEN",
                7,
                "a" * 2_000,
            ),
        ),
        ("tls_client_auth_san_dns", ("*.example.org", "a..b", "a b", "-a.example", "")),
        ("tls_client_auth_san_uri", ("payer", "spiffe://a b", "urn:", "https://\u00e9")),
        ("tls_client_auth_san_ip", ("192.0.2.0/24", "192.0.2", "localhost", "1.2.3.04")),
        ("tls_client_auth_san_email", ("payer", "a@b@c", "@example.org", "a b@example.org")),
    ],
)
def test_a_malformed_name_is_not_registered(name, values):
    for value in values:
        with pytest.raises(InvalidChangeError, match=f"^{name}: "):
            check_properties({name: value})


def test_a_registered_key_has_its_certificates_and_x5c_one_alone():
    """RFC 8705, 2.2.2."""
    first, second = self_signed(), self_signed()
    by_key = parse_key_set({"keys": [first.jwk(with_certificate=False)]})
    by_certificate = parse_key_set({"keys": [first.jwk()]})
    for keys in (by_key, by_certificate):
        assert keys.holds_certificate(first.der, key_thumbprint_of(first.der))
        assert not keys.holds_certificate(second.der, key_thumbprint_of(second.der))
    renewed = self_signed(key=first.key)
    assert by_key.holds_certificate(renewed.der, key_thumbprint_of(renewed.der))
    assert not by_certificate.holds_certificate(renewed.der, key_thumbprint_of(renewed.der))


def test_a_chain_leads_to_a_known_authority_or_is_refused():
    """RFC 5280, 6; Case A16."""
    root, stranger = ClientAuthority(), ClientAuthority()
    intermediate = ClientAuthority(root)
    verifier = ChainVerifier(root.pem, lambda: datetime.now(UTC))

    def is_valid(client, issuers=()):
        chain = tuple(each.public_bytes(Encoding.DER) for each in issuers)
        found = parse_certificate(client.der)
        return verifier.is_valid(ClientCertificate(**as_fields(found) | {"chain": chain}))

    assert is_valid(root.issue())
    # A subject alone is enough, and names of every kind are.
    assert is_valid(root.issue(names=all_names()))
    below = intermediate.issue()
    assert is_valid(below, below.issuers)
    assert not is_valid(below)
    assert not is_valid(stranger.issue())
    assert not is_valid(self_signed())
    assert not is_valid(root.issue(ends=timedelta(minutes=-1)))
    assert not is_valid(root.issue(starts=timedelta(hours=1)))
    assert not is_valid(root.issue(usage=ExtendedKeyUsageOID.SERVER_AUTH))
    # A client's certificate is no authority.
    client = root.issue()
    issued = self_signed(issuer=client)
    assert not is_valid(issued, [client.certificate])
    with pytest.raises(ValueError, match="PEM"):
        ChainVerifier(b"nothing", lambda: datetime.now(UTC))


def as_fields(found: ClientCertificate) -> dict[str, object]:
    return {name: getattr(found, name) for name in found.__struct_fields__}


def test_names_are_parsed_once():
    assert parse_name(SUBJECT) is parse_name(SUBJECT)
