"""Contract suites for plugins without parts, and for sources of introspection.

Import them from :mod:`authz_server.plugin_api.testing`.
"""
# ruff: noqa: S101 - these are tests
# ruff: noqa: D102 - a test's name is its sentence

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from authz_server.audit.events import ServerStarted, ServerStopped
from authz_server.errors import OAuthError
from authz_server.hookspecs import AnsweredRequest, Revocation, TokenDecision
from authz_server.plugin_manager import PluginManager
from authz_server.tokens.introspection_source import IntrospectionSource, require_answer
from authz_server.waiting import run

#: The one scope that the client of the contracts may ask for.
SCOPE = "contract/read"


class LogCapture(Protocol):
    """The fixture ``caplog`` of pytest, as far as it is used here."""

    records: list[logging.LogRecord]


class PluginContract:
    """The contract of a plugin that decides on tokens, adds claims or is notified.

    Needs the fixtures ``plugin``, the class, and ``settings``, a table with which it starts. The
    requests are those of the client ``contract-client``.
    """

    request = TokenDecision(
        client_id="contract-client",
        grant_type="client_credentials",
        scopes=(SCOPE,),
        audience=("https://contract.example",),
        lifetime_seconds=900,
        subject="contract-client",
        source_address="192.0.2.1",
        authentication_method="client_secret_post",
    )

    def load(self, plugin: type, settings: Mapping[str, Any]) -> PluginManager:
        """Return the plugin in use, as the server loads it."""
        return load_plugin(plugin, settings)

    def test_it_starts_and_implements_a_hook(
        self, plugin: type, settings: Mapping[str, Any]
    ) -> None:
        assert self.load(plugin, settings).describe("contract")

    def test_it_permits_a_token_with_some_of_its_scopes_or_refuses_it(
        self, plugin: type, settings: Mapping[str, Any]
    ) -> None:
        decided = _decide(self.load(plugin, settings), self.request)
        assert decided is None or set(decided.scopes) <= set(self.request.scopes)

    def test_its_claims_are_accepted(self, plugin: type, settings: Mapping[str, Any]) -> None:
        loaded = self.load(plugin, settings)
        assert isinstance(loaded.token_claims(self.request), dict)
        shown = {"active": True, "scope": SCOPE, "client_id": "contract-client"}
        assert isinstance(loaded.introspection_claims(shown), dict)

    def test_it_fails_at_no_notification(
        self, plugin: type, settings: Mapping[str, Any], caplog: LogCapture
    ) -> None:
        loaded = self.load(plugin, settings)
        loaded.emit(ServerStarted(version="1", issuer="https://authz.example", process_id=1))
        loaded.report_revocation(Revocation("token", "a-token", "contract-client"))
        loaded.follow_request(
            AnsweredRequest("token", "/oauth2/token", 200, "ok", 0.0, 0.001, "id", "", "192.0.2.1")
        )
        loaded.emit(ServerStopped(process_id=1))
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def _decide(loaded: PluginManager, request: TokenDecision) -> TokenDecision | None:
    """Return what a plugin leaves of a token; None: it refuses it."""
    try:
        return loaded.decide_token(request)
    except OAuthError as error:
        if error.reason != "refused_by_policy":
            raise
        return None


def load_plugin(plugin: type, settings: Mapping[str, Any]) -> PluginManager:
    """Return a plugin in use, without a server.

    Args:
        plugin: its class.
        settings: its table of settings.

    Raises:
        PluginError: it cannot be used.
    """
    available: Any = _Available(plugin)
    return PluginManager(
        ["contract"], {"contract": settings}, [available], services=_ContractServices()
    )


class _Available:
    """An entry point of a class that needs no installed package."""

    name = "contract"

    def __init__(self, plugin: type) -> None:
        self._plugin = plugin

    def load(self) -> type:
        return self._plugin


class _ContractServices:
    """The services that need no server."""

    issuer = "https://authz.example"
    audit_destination = "stderr"

    def now(self) -> datetime:
        return datetime.now(UTC)

    def find_issuer(self, issuer: object) -> None:
        del issuer


class IntrospectionSourceContract:
    """The contract of a source of introspection.

    Needs the fixture ``source``, and ``right`` and ``wrong``: a token that it describes, and one
    that it does not know.
    """

    right: str
    wrong: str

    def test_a_known_token_has_the_members_that_the_server_needs(
        self, source: IntrospectionSource
    ) -> None:
        assert require_answer(run(source.find_active(self.right)))

    def test_any_other_token_has_none(self, source: IntrospectionSource) -> None:
        others = (self.wrong, "", "a.b.c", "\ufffd", "x" * 100_000, self.right + "x")
        assert [run(source.find_active(token)) for token in others] == [None] * len(others)
