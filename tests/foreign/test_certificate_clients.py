"""Clients that others wrote authenticate by a TLS certificate, and get tokens bound to it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import requests_oauth2client
from authlib.integrations.requests_client import OAuth2Session

from authz_server.clients.certificate_parser import thumbprint_of
from authz_server.settings import load_settings
from support.claims import claims_of
from support.client_certificates import ClientAuthority
from support.databases import copied_database
from support.live_server import LiveServer
from support.node import run_script
from support.openbao_authority import CertificateAuthority
from support.parties import Parties
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings

SCOPE = "mapper/link"
SUBJECT = "CN=payer,O=Ministry,C=KE"
AUTHORITY = ClientAuthority()
PAYER = AUTHORITY.issue(SUBJECT)
BOUND = {"x5t#S256": thumbprint_of(PAYER.der)}


@dataclass(frozen=True)
class Scene:
    """A server with TLS of its own, and the files of its authority and of a client."""

    issuer: str
    authority: Path
    certificate: Path

    def session(self) -> requests.Session:
        """Return a session with the client's certificate."""
        session = requests.Session()
        self.equip(session)
        return session

    def equip(self, session: requests.Session) -> None:
        """Give a session the client's certificate."""
        session.verify, session.cert = str(self.authority), str(self.certificate)
        # Variables of the environment would come before the authority.
        session.trust_env = False

    def metadata(self) -> dict[str, Any]:
        """Return the server's metadata."""
        with self.session() as session:
            return session.get(f"{self.issuer}/.well-known/oauth-authorization-server").json()


@pytest.fixture(scope="module")
def scene(request, tmp_path_factory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("certificates")
    authority = CertificateAuthority(directory)
    certificate, key = authority.certify("localhost")
    (directory / "clients.pem").write_bytes(AUTHORITY.pem)

    with copied_database(request, "sqlite", directory) as database_url:

        def write(server: dict[str, Any]) -> Path:
            tables = {
                "issuer": f"https://127.0.0.1:{server['port']}",
                "server": server,
                "client_certificates": {
                    "source": "listener",
                    "ca_file": str(directory / "clients.pem"),
                    "mtls_base_url": f"https://localhost:{server['port']}",
                },
            }
            return write_settings(directory, database_url, tables)

        tls = {"tls_certificate": str(certificate), "tls_private_key": str(key)}
        server = LiveServer(write, directory, server=tls)
        parties = Parties(load_settings(server.settings_path), SecretsWatch())
        parties.create_first_keys()
        parties.make_resource_server()
        name = {"tls_client_auth_subject_dn": SUBJECT}
        bound = {"tls_client_certificate_bound_access_tokens": True}
        parties.make_client("payer", "tls_client_auth", properties=name | bound)
        with server:
            yield Scene(
                server.base_url, authority.certificate_path, PAYER.write(directory, "payer")
            )


def test_requests_oauth2client(scene):
    """Case A16."""
    with scene.session() as session:
        client = requests_oauth2client.OAuth2Client.from_discovery_endpoint(
            f"{scene.issuer}/.well-known/oauth-authorization-server",
            scene.issuer,
            auth=requests_oauth2client.PublicApp("payer"),
            session=session,
        )
        token = client.client_credentials(scope=SCOPE)
        assert claims_of(token.access_token)["cnf"] == BOUND
        assert client.introspect_token(token.access_token)["cnf"] == BOUND
        assert client.revoke_access_token(token.access_token)
        assert not client.introspect_token(token.access_token)["active"]


def test_authlib(scene):
    """Case A16."""
    aliases = scene.metadata()["mtls_endpoint_aliases"]
    with OAuth2Session("payer", token_endpoint_auth_method="none", scope=SCOPE) as client:
        scene.equip(client)
        url = aliases["token_endpoint"]
        token = client.fetch_token(url, grant_type="client_credentials")
        assert claims_of(token["access_token"])["cnf"] == BOUND
        found = client.introspect_token(aliases["introspection_endpoint"], token["access_token"])
        assert found.json()["cnf"] == BOUND


def test_oauth4webapi(scene, oauth4webapi):
    """Case A16."""
    seen = run_script(
        oauth4webapi,
        "certificates.mjs",
        {
            "issuer": scene.issuer,
            "client": "payer",
            "certificate": scene.certificate.read_text(),
            "authority": scene.authority.read_text(),
            "scope": SCOPE,
        },
    )
    assert claims_of(seen["token"]["access_token"])["cnf"] == BOUND
    assert seen["before"]["cnf"] == BOUND
    assert seen["after"]["active"] is False
    # The library asks for the metadata at the issuer, and for all else at the aliases.
    hosts = [address.split("/")[2].partition(":")[0] for address in seen["addresses"]]
    assert hosts == ["127.0.0.1", *["localhost"] * 4]
