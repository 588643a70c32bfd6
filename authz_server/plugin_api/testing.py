"""Contract suites for the parts of plugins, and a server to run them on: imported by tests alone.

A test class inherits a contract and provides its fixtures. ``docs/plugins.md`` shows each.
"""
# ruff: noqa: S101 - these are tests
# ruff: noqa: D102 - a test's name is its sentence
# ruff: noqa: PLR2004 - a number in a test is the expected value

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from werkzeug.test import Client

from authz_server.app import EXTENSION, create_app
from authz_server.assembly.operator import operator_services
from authz_server.clients.authentication.authenticator import STAND_IN
from authz_server.clients.authentication.method import (
    AuthenticationRequest,
    ClientAuthenticationMethod,
    Verdict,
)
from authz_server.clients.authentication.registry import AuthenticationMethods
from authz_server.clients.cache import ClientEntry
from authz_server.database.schema import upgrade_database
from authz_server.operations.clients import create_client
from authz_server.operations.keys.first_keys import create_missing_keys
from authz_server.operations.resource_servers import create_resource_server
from authz_server.operations.scopes import add_scope
from authz_server.plugin_api.contracts import IntrospectionSourceContract, PluginContract
from authz_server.settings import load_settings
from authz_server.waiting import run
from keys.testing import KeyBackendContract

__all__ = [
    "ClientAuthenticationMethodContract",
    "GrantContract",
    "IntrospectionSourceContract",
    "KeyBackendContract",
    "PluginContract",
    "PluginServer",
    "plugin_server",
]

_ACTOR = "operator:contract"
_SCOPE = "contract/read"
_SETTINGS = """
issuer = "https://authz.example"
environment = "development"
audit.destination = "stderr"
database.url = "sqlite:///server.db"
clients.secret_pepper.env = "PEPPER"
keys.key_encryption_key.env = "KEY"
keys.rings.es256.algorithm = "ES256"
"""
_ENVIRONMENT = {"PEPPER": "0123456789abcdef" * 4, "KEY": "fedcba9876543210" * 4}


class Answer(NamedTuple):
    """The status and the JSON body of an answer."""

    status: int
    body: dict[str, Any]


class PluginServer:
    """A server in this process, with the client ``contract-client``.

    Attributes:
        scope: the one scope that the client may ask for.
        secret: the client's secret.
    """

    scope = _SCOPE

    def __init__(self, client: Client, secret: str) -> None:
        self._client = client
        self.secret = secret

    def get(self, path: str) -> Answer:
        """Return the answer to a GET, for example of ``/.well-known/jwks.json``."""
        answer = self._client.get(path)
        return Answer(answer.status_code, json.loads(answer.data))

    def request_token(self, grant_type: str, **form: str) -> Answer:
        """Ask for a token; the client authenticates by its secret unless ``form`` changes it."""
        sent = {
            "grant_type": grant_type,
            "client_id": "contract-client",
            "client_secret": self.secret,
            "scope": self.scope,
        }
        answer = self._client.post("/oauth2/token", data=sent | form)
        return Answer(answer.status_code, json.loads(answer.data))


@contextmanager
def plugin_server(
    folder: Path,
    plugins: Mapping[str, Mapping[str, Any]],
    grant_types: tuple[str, ...] = ("client_credentials",),
) -> Iterator[PluginServer]:
    """Yield a server with plugins, on SQLite.

    Args:
        folder: an empty folder for its files.
        plugins: the settings of each plugin, by the name of its entry point; the values are those
            that JSON can carry.
        grant_types: those that the client may use.

    Raises:
        PluginError: a plugin cannot be used.
    """
    file = folder / "authz-server.toml"
    lines = [_SETTINGS, f"plugins.enabled = {json.dumps(list(plugins))}\n"]
    lines += [f"plugins.settings.{name} = {_toml(table)}\n" for name, table in plugins.items()]
    file.write_text("".join(lines), encoding="utf-8")
    settings = load_settings(file, _ENVIRONMENT)
    upgrade_database(settings.database)
    with operator_services(settings) as services:
        create_missing_keys(services, actor=_ACTOR)
        add_scope(services, actor=_ACTOR, name=_SCOPE)
        create_resource_server(
            services,
            actor=_ACTOR,
            id="contract",
            name="Contract",
            identifier="https://contract.example",
            scopes=[_SCOPE],
        )
        made = create_client(
            services,
            actor=_ACTOR,
            id="contract-client",
            name="Contract",
            allowed_scopes=[_SCOPE],
            grant_types=grant_types,
        )
    app = create_app(settings)
    try:
        yield PluginServer(Client(app), made.secret.value if made.secret else "")
    finally:
        services = app.extensions[EXTENSION]
        services.maintenance.stop()
        services.database.close()


def _toml(value: object) -> str:
    # Other values are written alike in JSON.
    if isinstance(value, Mapping):
        pairs = (f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items())
        return f"{{ {', '.join(pairs)} }}"
    return json.dumps(value)


class GrantContract:
    """The contract of a grant; needs the fixtures ``server``, ``right`` and ``wrong``.

    ``server`` is a :class:`PluginServer` whose client may use the grant, ``right`` the parameters
    of a request that is granted, ``wrong`` those of one that is refused.
    """

    grant_type: str

    def test_the_metadata_lists_the_grant(self, server: PluginServer) -> None:
        metadata = server.get("/.well-known/oauth-authorization-server").body
        assert self.grant_type in metadata["grant_types_supported"]

    def test_a_right_request_gets_a_token_for_the_scope_asked(
        self, server: PluginServer, right: dict[str, str]
    ) -> None:
        answer = server.request_token(self.grant_type, **right)
        assert answer.status == 200, answer.body
        assert answer.body["scope"] == server.scope
        assert answer.body["expires_in"] > 0

    def test_a_wrong_request_is_refused_with_an_error_of_rfc_6749(
        self, server: PluginServer, wrong: dict[str, str]
    ) -> None:
        answer = server.request_token(self.grant_type, **wrong)
        assert answer.status == 400, answer.body
        assert answer.body["error"] in {"invalid_grant", "invalid_request"}

    def test_a_scope_that_the_client_may_not_have_is_refused(
        self, server: PluginServer, right: dict[str, str]
    ) -> None:
        answer = server.request_token(self.grant_type, **right | {"scope": "contract/other"})
        assert (answer.status, answer.body["error"]) == (400, "invalid_scope")

    def test_a_client_that_does_not_authenticate_is_refused(
        self, server: PluginServer, right: dict[str, str]
    ) -> None:
        answer = server.request_token(self.grant_type, **right | {"client_secret": "wrong"})
        assert (answer.status, answer.body["error"]) == (401, "invalid_client")


class ClientAuthenticationMethodContract:
    """The contract of a client authentication method.

    Needs the fixtures ``method``, and ``right`` and ``wrong``: requests of the client
    :attr:`client` with the right proof and with a wrong one.
    """

    client = ClientEntry(
        id="contract-client",
        kind="client",
        enabled=True,
        created_at=0.0,
        starts_at=0.0,
        expires_at=float("inf"),
        authentication_method="",
        grant_types=frozenset(),
        allowed_scopes=frozenset(),
        default_scopes=(),
        allowed_resource_servers=frozenset(),
        permissions=frozenset(),
        token_lifetime_seconds=None,
        g2p_answer="document",
        secrets=(),
        resource_server=None,
    )

    def test_its_registrations_permit_its_names_and_no_others(
        self, method: ClientAuthenticationMethod
    ) -> None:
        permitted = {name for names in method.REGISTRATIONS.values() for name in names}
        assert permitted == set(method.NAMES)
        assert AuthenticationMethods([("contract", method)]).names == method.NAMES

    def test_a_request_without_its_credentials_is_not_recognised(
        self, method: ClientAuthenticationMethod
    ) -> None:
        for form in ({}, {"client_id": self.client.id}):
            request = AuthenticationRequest(form, {}, "192.0.2.1")
            assert method.recognise(request) is None

    def test_the_credentials_recognised_name_the_client_and_a_method(
        self, method: ClientAuthenticationMethod, right: AuthenticationRequest
    ) -> None:
        credentials = method.recognise(right)
        assert credentials is not None
        assert credentials.method in method.NAMES
        assert self.client.id in {reading.client_id for reading in credentials.readings}

    def test_the_right_proof_is_accepted(
        self, method: ClientAuthenticationMethod, right: AuthenticationRequest
    ) -> None:
        assert any(self._is_accepted(each) for each in self._verify(method, right, self.client))

    def test_a_wrong_proof_is_refused(
        self, method: ClientAuthenticationMethod, wrong: AuthenticationRequest
    ) -> None:
        verdicts = self._verify(method, wrong, self.client)
        assert verdicts
        assert not any(self._is_accepted(each) for each in verdicts)

    def test_the_stand_in_for_an_unknown_client_is_refused(
        self, method: ClientAuthenticationMethod, right: AuthenticationRequest
    ) -> None:
        assert not any(self._is_accepted(each) for each in self._verify(method, right, STAND_IN))

    def _verify(
        self,
        method: ClientAuthenticationMethod,
        request: AuthenticationRequest,
        client: ClientEntry,
    ) -> list[Verdict]:
        """Return the verdict on each reading, with what further steps add."""
        credentials = method.recognise(request)
        assert credentials is not None
        return [
            run(_conclude(method.verify(reading, client, request.address, time.time())))
            for reading in credentials.readings
        ]

    @staticmethod
    def _is_accepted(verdict: Verdict) -> bool:
        return bool(verdict.credential) and not verdict.cause


async def _conclude(verdict: Verdict) -> Verdict:
    if verdict.further is not None:
        verdict = await verdict.further()
    if verdict.conclude is not None and not verdict.cause:
        verdict = await verdict.conclude()
    return verdict
