"""A resource server that others wrote, mod_oauth2 as docs/client-certificates.md has it."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from authz_server.settings import load_settings
from support.apache import Apache
from support.client_certificates import ClientKey, header_value, self_signed
from support.databases import copied_database
from support.live_server import LiveServer
from support.openbao_authority import CertificateAuthority
from support.parties import Credentials, Parties
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings
from support.source_tree import ROOT
from support.tls_front import client_context

KEY, OTHER = self_signed(), self_signed()
PATHS = ("/list.txt", "/introspected/list.txt")


def documented(certificate: Path, key: Path, issuer: str) -> str:
    """Return the document's block, with the places of a test."""
    text = (ROOT / "docs" / "client-certificates.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```apache\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for place, instead in (
        ("/etc/apache2/mapper.pem", str(certificate)),
        ("/etc/apache2/mapper.key", str(key)),
        ("https://auth.example.org", issuer),
    ):
        assert place in block
        block = block.replace(place, instead)
    return str(block)


class Site:
    """A resource server with its Apache, and a client with bound tokens."""

    def __init__(self, server: LiveServer, apache: Apache, client: Credentials, trust: Path):
        self.server, self.apache, self.client, self.trust = server, apache, client, trust

    def fetch_token(self, client: Credentials | None = None) -> str:
        """Return a token that the proxy's header binds to the key."""
        form = {"grant_type": "client_credentials", "scope": "mapper/link"}
        url, caller = f"{self.server.base_url}/oauth2/token", client or self.client
        headers = header_value("client-cert", KEY.der) | caller.headers()
        answer = httpx.post(url, data=form, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    def call(self, path: str, token: str, key: ClientKey | None) -> int:
        """Return the status of a call with a token over a connection with a certificate."""
        with tempfile.TemporaryDirectory() as place:
            context = client_context(self.trust, key, Path(place))
            with httpx.Client(verify=context) as sender:
                url = self.apache.base_url.replace("http:", "https:") + path
                return sender.get(url, headers={"Authorization": f"Bearer {token}"}).status_code


@pytest.fixture(scope="module")
def site(request, tmp_path_factory) -> Iterator[tuple[Site, Credentials]]:
    directory = tmp_path_factory.mktemp("server")
    with copied_database(request, "sqlite", directory) as database_url:

        def write(server: dict[str, Any]) -> Path:
            tables = {
                "issuer": f"http://127.0.0.1:{server['port']}",
                "server": server | {"trusted_proxies": ["127.0.0.1"]},
                "client_certificates": {"source": "client-cert"},
            }
            return write_settings(directory, database_url, tables)

        server = LiveServer(write, directory)
        parties = Parties(load_settings(server.settings_path), SecretsWatch())
        parties.create_first_keys()
        mapper = parties.make_resource_server()
        bound = {"tls_client_certificate_bound_access_tokens": True}
        client = parties.make_client("bound", "client_secret_basic", properties=bound)
        bearer = parties.make_client("bearer", "client_secret_basic")
        # Another user than the test's runs Apache, and has to reach its folder.
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            authority = CertificateAuthority(directory)
            held = [shutil.copy(each, place) for each in authority.certify("localhost")]
            block = documented(Path(held[0]), Path(held[1]), server.base_url)
            for path in PATHS:
                file = place / "documents" / path.removeprefix("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("a list\n")
            apache = Apache(place, ["ssl", "oauth2"], block, {"AUTHZ_SECRET": mapper.secret})
            with apache, server:
                yield Site(server, apache, client, authority.certificate_path), bearer


@pytest.mark.parametrize("path", PATHS)
def test_the_right_certificate_alone_is_accepted(site, path):
    """Case A16."""
    scene, bearer = site
    token = scene.fetch_token()
    assert scene.call(path, token, KEY) == 200, scene.apache.log_path.read_text()
    assert scene.call(path, token, OTHER) == 401
    assert scene.call(path, token, None) == 401
    assert scene.call(path, scene.fetch_token(bearer), KEY) == 401
