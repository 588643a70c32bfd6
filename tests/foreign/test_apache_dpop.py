"""A resource server that others wrote, mod_oauth2 as docs/sender-constrained-tokens.md has it."""

import base64
import hashlib
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from authz_server.settings import load_settings
from support.apache import Apache
from support.databases import copied_database
from support.dpop import ProofKey
from support.live_server import LiveServer
from support.parties import Credentials, Parties
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings
from support.source_tree import ROOT

KEY = ProofKey()
PATHS = ("/list.txt", "/introspected/list.txt")


def documented(language: str, **places: str) -> str:
    """Return the document's block in a language, with these hosts in the place of its own."""
    text = (ROOT / "docs" / "sender-constrained-tokens.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for place, instead in places.items():
        host = f"https://{place}.example" if place == "mapper" else f"https://{place}.example.org"
        assert host in block
        block = block.replace(host, instead)
    return block


class Site:
    """A resource server with its Apache, and a client of it."""

    def __init__(self, server: LiveServer, apache: Apache, client: Credentials) -> None:
        self.server, self.apache, self.client = server, apache, client

    def fetch_token(self, *, bound: bool = True) -> str:
        """Return a token of the client."""
        url = f"{self.server.base_url}/oauth2/token"
        form = {"grant_type": "client_credentials", "scope": "mapper/link"}
        headers = {"DPoP": KEY.prove(time.time(), htu=url)} if bound else {}
        answer = httpx.post(url, data=form, headers=self.client.headers() | headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    def call(self, path: str, token: str, key: ProofKey = KEY, **claims: Any) -> int:
        """Return the status of a call with a token and a proof."""
        url = f"{self.apache.base_url}{path}"
        digest = hashlib.sha256(token.encode()).digest()
        ath = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        proof = key.prove(time.time(), **{"htm": "GET", "htu": url, "ath": ath} | claims)
        headers = {"Authorization": f"DPoP {token}", "DPoP": proof}
        return httpx.get(url, headers=headers).status_code


@pytest.fixture(scope="module")
def site(request, tmp_path_factory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("server")
    with copied_database(request, "sqlite", directory) as database_url:

        def write(server: dict[str, Any]) -> Path:
            issuer = f"http://127.0.0.1:{server['port']}"
            return write_settings(directory, database_url, {"issuer": issuer, "server": server})

        server = LiveServer(write, directory)
        parties = Parties(load_settings(server.settings_path), SecretsWatch())
        parties.create_first_keys()
        mapper = parties.make_resource_server()
        client = parties.make_client(method="client_secret_basic")
        secret = {"AUTHZ_SECRET": mapper.secret}
        # Another user than the test's runs Apache, and has to reach its folder.
        with tempfile.TemporaryDirectory() as place:
            add_documents(Path(place) / "documents")
            apache = Apache(
                Path(place), ["oauth2"], documented("apache", auth=server.base_url), secret
            )
            with apache, server:
                yield Site(server, apache, client)


def add_documents(folder: Path) -> None:
    """Write a file at each of the paths."""
    for path in PATHS:
        file = folder / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("a list\n")


@pytest.mark.parametrize("path", PATHS)
def test_the_right_key_is_accepted(site: Site, path):
    """Case A16."""
    status = site.call(path, site.fetch_token())
    assert status == 200, site.apache.log_path.read_text()


@pytest.mark.parametrize("path", PATHS)
def test_another_key_is_refused(site: Site, path):
    """Case A16."""
    assert site.call(path, site.fetch_token(), ProofKey()) == 401


@pytest.mark.parametrize("path", PATHS)
def test_no_proof_and_a_bearer_token_are_refused(site: Site, path):
    """Case A16."""
    token = site.fetch_token()
    for scheme in ("DPoP", "Bearer"):
        url = f"{site.apache.base_url}{path}"
        assert httpx.get(url, headers={"Authorization": f"{scheme} {token}"}).status_code == 401
    assert site.call(path, site.fetch_token(bound=False)) == 401


def test_the_client_of_the_document(site: Site):
    """Case A16."""
    places = {"auth": site.server.base_url, "mapper": site.apache.base_url}
    program = documented("python", **places).replace('/link",', '/list.txt",')
    # Plain http is the only thing that this lets pass.
    program = program.replace(
        "bound_access_tokens=True,", "bound_access_tokens=True, testing=True,"
    )
    names: dict[str, Any] = {"secret": site.client.secret}
    exec(compile(program, "document", "exec"), names)  # noqa: S102 - the project's own document
    assert names["answer"].status_code == 200
    assert names["token"].token_type == "DPoP"
    names["client"].session.close()
