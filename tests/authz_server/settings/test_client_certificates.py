"""The source of client certificates: what contradicts the listeners is refused at the start."""

import pytest

from authz_server.app import require_usable
from authz_server.serving.tls import tls_context
from authz_server.settings import ClientCertificateSettings, ServerSettings, SettingsError
from support.minimal_settings import load, refusal
from support.openbao_authority import CertificateAuthority

PROXIED = "[server]\ntrusted_proxies = ['10.0.0.0/8', 'fd00::1']\n"
TABLE = "[client_certificates]\n"


@pytest.mark.parametrize(
    ("more", "key"),
    [
        (TABLE + "source = 'apache'", "source"),
        (TABLE + "source = 'nginx'", "source"),
        (TABLE + "source = 'listener'", "ca_file"),
        (TABLE + "source = 'listener'\nca_file = 'pepper'", "source"),
        (PROXIED + TABLE + "source = 'nginx'\nproxies = ['192.0.2.1']", "proxies[0]"),
        (PROXIED + TABLE + "source = 'nginx'\nproxies = ['10.0.0.0/7']", "proxies[0]"),
        (PROXIED + TABLE + "source = 'nginx'\nproxies = ['10.0.0.1', 'fd00::2']", "proxies[1]"),
        (PROXIED + TABLE + "source = 'nginx'\nproxies = ['0.0.0.0/0']", "proxies"),
        (PROXIED + TABLE + "source = 'nginx'\nproxies = ['proxy']", "proxies[0]"),
        (PROXIED + TABLE + "source = 'nginx'\ncertificate_header = 'X_Cert'", "certificate_header"),
        (PROXIED + TABLE + "source = 'nginx'\nverify_header = 'X-Verify'", "verify_header"),
        (PROXIED + TABLE + "source = 'nginx'\nca_file = 'missing.pem'", "ca_file"),
        (TABLE + "mtls_base_url = 'https://mtls.example'", "mtls_base_url"),
        *(
            (PROXIED + TABLE + f"source = 'nginx'\nmtls_base_url = '{url}'", "mtls_base_url")
            for url in (
                "http://mtls.example",
                "https://mtls.example/",
                "https://mtls.example?a",
                "https://a@mtls.example",
                "https://mtls.example:x",
                "mtls.example",
            )
        ),
    ],
)
def test_a_source_that_cannot_be_used_is_refused(tmp_path, more, key):
    """Case L129."""
    assert refusal(tmp_path, more=more).key == f"client_certificates.{key}"


def test_proxies_may_be_part_of_the_trusted_ones(tmp_path):
    more = TABLE + "source = 'envoy'\nproxies = ['10.1.0.0/16', 'fd00::1']"
    settings = load(tmp_path, more=PROXIED + more)
    assert settings.client_certificates.proxies == ("10.1.0.0/16", "fd00::1")
    assert not settings.client_certificates.can_be_verified


def test_a_file_without_authorities_is_refused(tmp_path):
    """Case L129."""
    settings = load(tmp_path, more=PROXIED + TABLE + "source = 'envoy'\nca_file = 'pepper'")
    assert settings.client_certificates.ca_file == str(tmp_path / "pepper")
    with pytest.raises(SettingsError) as caught:
        require_usable(settings)
    assert caught.value.key == "client_certificates.ca_file"


def test_a_listener_reads_its_authorities_too(tmp_path):
    """Case L129."""
    authority = CertificateAuthority(tmp_path)
    certificate, key = authority.certify("localhost")
    server = ServerSettings(tls_certificate=str(certificate), tls_private_key=str(key))
    listener = ClientCertificateSettings(source="listener", ca_file=str(key))
    with pytest.raises(SettingsError) as caught:
        tls_context(server, listener)
    assert caught.value.key == "client_certificates.ca_file"
