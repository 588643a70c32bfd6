"""A server with its management listener over TLS, and the command line beside it and far away."""

import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import click
import httpx
from click.testing import CliRunner, Result

from authz_server.assembly.operator import operator_services
from authz_server.cli.commands import Command
from authz_server.cli.root import main
from authz_server.clients.registrations import ADMIN_IDENTIFIER
from authz_server.operations.admin_api import ADMIN_SCOPES, register_admin_api
from authz_server.operations.clients import create_client
from authz_server.settings import load_settings
from support.live_server import LiveServer
from support.openbao_authority import CertificateAuthority
from support.parties import ACTOR, Parties
from support.ports import release_port, reserve_port
from support.scripted_server import ScriptedServer
from support.secrets_watch import SecretsWatch
from support.settings_file import PATIENT_DATABASE, write_settings

ALL_SCOPES = tuple(name for name, _, _ in ADMIN_SCOPES)


class RemoteSite:
    """A server, the clients `first` and `second` of its admin API, and commands on both ways."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        authority = CertificateAuthority(folder)
        self.ca_file = authority.certificate_path
        certified = authority.certify("localhost")
        self.admin_port = reserve_port()
        self.url = f"https://localhost:{self.admin_port}"
        admin = {
            "enabled": True,
            "port": self.admin_port,
            "public_url": self.url,
            "tls_certificate": str(certified.certificate_path),
            "tls_private_key": str(certified.private_key_path),
            "requests_per_minute": 100_000,
        }
        rings = {name: {"algorithm": "ES256"} for name in ("es256", "local", "there")}

        def settings(**overrides: Mapping[str, object]) -> Path:
            issuer = f"http://127.0.0.1:{overrides['server']['port']}"
            tables = {"issuer": issuer, "database": PATIENT_DATABASE, **overrides}
            return write_settings(folder, database_url, tables)

        self.server = LiveServer(
            settings,
            folder,
            admin=admin,
            approvals={"acts": ["scope.grant_money", "token.revoke"]},
            dpop={"nonce": "required"},
            keys={"rings": rings, "default_ring": "es256"},
        )
        self.config = self.server.settings_path
        self.secrets = self._register()
        self._tokens: dict[tuple[str, ...], str] = {}

    def _register(self) -> Mapping[str, str]:
        settings = load_settings(self.config)
        self.parties = Parties(settings, SecretsWatch())
        self.parties.create_first_keys()
        self.parties.import_scopes()
        secrets = {}
        with operator_services(settings) as services:
            register_admin_api(services, actor=ACTOR)
            for name in ("first", "second"):
                made = create_client(
                    services, actor=ACTOR, id=name, name=name, allowed_scopes=ALL_SCOPES
                )
                assert made.secret is not None
                secrets[name] = made.secret.value
        return secrets

    def token(self, client: str = "first", *scopes: str, resource: str = ADMIN_IDENTIFIER) -> str:
        """Return a token of a client for the admin API; the same one each time."""
        wanted = (client, resource, *scopes)
        if wanted not in self._tokens:
            answer = httpx.post(
                f"{self.server.base_url}/oauth2/token",
                data={
                    "grant_type": "client_credentials",
                    "scope": " ".join(scopes or ALL_SCOPES),
                    "resource": resource,
                },
                auth=(client, self.secrets[client]),
            )
            assert answer.status_code == 200, answer.text
            self._tokens[wanted] = answer.json()["access_token"]
        return self._tokens[wanted]

    def renew_tokens(self) -> None:
        """Obtain new tokens, after all of this second and earlier were revoked."""
        time.sleep(1.0)
        self._tokens.clear()

    def local(
        self,
        *arguments: object,
        input: str | None = None,  # noqa: A002
        **environment: str,
    ) -> Result:
        """Run a command beside the server."""
        return self._run(("--config", self.config, *arguments), environment, input)

    def remote(
        self,
        *arguments: object,
        input: str | None = None,  # noqa: A002
        token: str | None = None,
        url: str | None = None,
        **environment: str,
    ) -> Result:
        """Run a command far away, without settings; an empty token is not handed over."""
        given = {"AUTHZ_SERVER_TOKEN": self.token() if token is None else token}
        access = ("--server", url or self.url, "--ca-file", self.ca_file)
        return self._run((*access, *arguments), {**given, **environment}, input)

    def _run(
        self,
        arguments: tuple[object, ...],
        environment: Mapping[str, str],
        input: str | None,  # noqa: A002
    ) -> Result:
        words = [str(each) for each in arguments]
        return CliRunner().invoke(main, words, input=input, env=dict(environment))


@contextmanager
def running_remote_site(folder: Path, database_url: str) -> Iterator[RemoteSite]:
    """Start a site; it is stopped in the end."""
    site = RemoteSite(folder, database_url)
    try:
        with site.server:
            yield site
    finally:
        release_port(site.admin_port)


@contextmanager
def losing_an_answer(
    site: RemoteSite, *, requests: int = 2
) -> Iterator[tuple[ScriptedServer, list[bytes]]]:
    """Relay requests to the server, and lose its first answer to one that is no dry run."""
    context = ssl.create_default_context(cafile=site.ca_file)
    lost: list[bytes] = []

    def relay(connection: socket.socket, request: bytes) -> bool:
        with (
            closing(socket.create_connection(("127.0.0.1", site.admin_port))) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as upstream,
        ):
            upstream.sendall(request)
            answer = b""
            while part := upstream.recv(65_536):
                answer += part
        if not lost and b"dry_run=true" not in request.partition(b"\r\n")[0]:
            lost.append(answer)
            return False
        connection.sendall(answer)
        return False

    with ScriptedServer(relay) as between:
        yield between, lost
        assert between.connections == requests


def leaves(
    command: click.Command = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Command]]:
    """Yield each command of ours that does something, with the words that lead to it."""
    if isinstance(command, Command):
        yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            yield from leaves(below, (*path, name))


def remote_commands() -> set[str]:
    """Return the commands that work with `--server`."""
    return {" ".join(path) for path, command in leaves() if command.remote}
