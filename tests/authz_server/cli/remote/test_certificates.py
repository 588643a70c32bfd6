"""Commands of clients with TLS certificates at a server (RFC 8705)."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from authz_server.assembly.operator import operator_services
from authz_server.cli.root import main
from authz_server.clients.registrations import ADMIN_IDENTIFIER
from authz_server.operations.admin_api import register_admin_api
from authz_server.operations.clients import create_client
from authz_server.settings import load_settings
from support.client_certificates import ClientAuthority
from support.databases import copied_database
from support.live_server import LiveServer
from support.openbao_authority import CertificateAuthority
from support.parties import ACTOR, Parties
from support.ports import release_port, reserve_port
from support.secrets_watch import SecretsWatch
from support.settings_file import PATIENT_DATABASE, write_settings

AUTHORITY = ClientAuthority()
SUBJECT = "CN=desk,O=Ministry,C=KE"
DESK, OTHER = AUTHORITY.issue(SUBJECT), AUTHORITY.issue("CN=other,O=Ministry,C=KE")
COMMAND = ("client", "show", "desk", "--json")


class CertificateSite:
    """A server whose listeners ask for certificates, and commands at it."""

    def __init__(self, folder: Path, database_url: str) -> None:
        authority = CertificateAuthority(folder)
        certified = authority.certify("localhost")
        files = {
            "tls_certificate": str(certified.certificate_path),
            "tls_private_key": str(certified.private_key_path),
        }
        clients = folder / "clients.pem"
        clients.write_bytes(AUTHORITY.pem)
        self.ca_file = authority.certificate_path
        self.admin_port = reserve_port()
        self.url = f"https://localhost:{self.admin_port}"

        def settings(**overrides) -> Path:
            self.issuer = f"https://localhost:{overrides['server']['port']}"
            tables = {"issuer": self.issuer, "database": PATIENT_DATABASE, **overrides}
            return write_settings(folder, database_url, tables)

        self.server = LiveServer(
            settings,
            folder,
            server=files,
            admin={"enabled": True, "port": self.admin_port, "public_url": self.url, **files},
            client_certificates={"source": "listener", "ca_file": str(clients)},
        )
        loaded = load_settings(self.server.settings_path)
        Parties(loaded, SecretsWatch()).create_first_keys()
        with operator_services(loaded) as services:
            register_admin_api(services, actor=ACTOR)
            create_client(
                services,
                actor=ACTOR,
                id="desk",
                name="Desk",
                allowed_scopes=["clients:read"],
                authentication_method="tls_client_auth",
                properties={
                    "tls_client_auth_subject_dn": SUBJECT,
                    "tls_client_certificate_bound_access_tokens": True,
                },
            )

    def run(self, *options: object) -> Result:
        """Run the command with options before its name."""
        access = ("--server", self.url, "--ca-file", self.ca_file, *options, *COMMAND)
        return CliRunner().invoke(main, [str(each) for each in access])

    def as_client(self, *options: object) -> Result:
        """Run the command as the client."""
        return self.run("--client-id", "desk", "--issuer", self.issuer, *options)

    def new_token(self, certificate: Path) -> str:
        """Return a token that is bound to a certificate alone."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.load_cert_chain(certificate)
        form = {
            "grant_type": "client_credentials",
            "client_id": "desk",
            "scope": "clients:read",
            "resource": ADMIN_IDENTIFIER,
        }
        answer = httpx.post(f"{self.issuer}/oauth2/token", data=form, verify=context)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]


@pytest.fixture(scope="module")
def site(request, tmp_path_factory) -> Iterator[CertificateSite]:
    folder = tmp_path_factory.mktemp("certificates")
    with copied_database(request, "sqlite", folder) as url:
        made = CertificateSite(folder, url)
        try:
            with made.server:
                yield made
        finally:
            release_port(made.admin_port)


def _require_refused(result: Result, text: str, status: int = 1) -> None:
    assert (result.exit_code, result.stdout) == (status, ""), result.output
    assert text in result.stderr


def test_a_client_works_by_its_certificate_alone(site, tmp_path):
    """At the token endpoint and at the API, with one file or two."""
    both = DESK.write(tmp_path, "desk")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_text(DESK.pem)
    key.write_bytes(DESK.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for options in (
        ("--certificate-file", both),
        ("--certificate-file", certificate, "--certificate-key-file", key),
    ):
        result = site.as_client(*options)
        assert result.exit_code == 0, result.output
    other = OTHER.write(tmp_path, "other")
    _require_refused(site.as_client("--certificate-file", other), "Client authentication failed")


def test_a_given_token_is_sent_with_the_certificate_that_it_is_bound_to(site, tmp_path):
    """Without it, and with another one, the token is refused."""
    desk, other = DESK.write(tmp_path, "desk"), OTHER.write(tmp_path, "other")
    token = tmp_path / "token"
    token.write_text(site.new_token(desk))
    shown = site.run("--token-file", token, "--certificate-file", desk)
    assert shown.exit_code == 0, shown.output
    for options in ((), ("--certificate-file", other)):
        refused = site.run("--token-file", token, *options)
        _require_refused(refused, "refuses the access token")


def test_files_that_cannot_be_used_are_named(site, tmp_path):
    """A key with a password is refused rather than asked for."""
    certificate, locked = tmp_path / "certificate.pem", tmp_path / "locked.pem"
    certificate.write_text(DESK.pem)
    password = BestAvailableEncryption(b"password")
    locked.write_bytes(DESK.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, password))
    for options in (
        ("--certificate-file", certificate),
        ("--certificate-file", tmp_path / "none"),
        ("--certificate-file", certificate, "--certificate-key-file", locked),
    ):
        _require_refused(site.as_client(*options), "has no certificate in PEM, or its private key")
    alone = site.as_client("--certificate-key-file", locked)
    _require_refused(alone, "belongs to --certificate-file", 2)
    plain = ("--server", "http://localhost:1", "--client-id", "desk", "--issuer", site.issuer)
    both = DESK.write(tmp_path, "desk")
    words = [*plain, "--certificate-file", str(both), *COMMAND]
    _require_refused(CliRunner().invoke(main, words), "is not https")
