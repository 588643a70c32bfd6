"""The plugin: refuses and narrows tokens by its rules."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from authz_server.plugin_api import (
    Narrowing,
    PluginServices,
    RefusalError,
    TokenDecision,
    hookimpl,
    refer_to,
)
from plugins.policy.replay import make_command
from plugins.policy.rules import read_policy


class PolicyPlugin:
    """The plugin: ``rules`` of its settings is the path of their file."""

    @hookimpl
    def start(self, settings: Mapping[str, Any], services: PluginServices) -> None:
        """Read the rules.

        Raises:
            ValueError: the file or a rule cannot be used.
        """
        path = settings.get("rules")
        if list(settings) != ["rules"] or not isinstance(path, str) or not Path(path).is_absolute():
            raise ValueError("rules: write the absolute path of the rules; there is no other key")
        self._services = services
        self._policy = read_policy(Path(path))
        for rule in self._policy.rules:
            for client in rule.clients:
                refer_to("client", f"rules.{rule.name}.clients", client)
            for scope in (*rule.scopes, *rule.remove_scopes):
                refer_to("scope", f"rules.{rule.name}.scopes", scope)

    @hookimpl
    def decide_token(self, request: TokenDecision) -> Narrowing | None:
        """Refuse the token by a rule, or permit less of it."""
        outcome = self._policy.decide(request, self._services.now())
        permitted = outcome.request
        if permitted is None:
            facts = f"[grant_type={request.grant_type} scope={' '.join(request.scopes)}]"
            raise RefusalError(f"{outcome.reason} {facts}")
        if permitted == request:
            return None
        return Narrowing(permitted.scopes, permitted.lifetime_seconds)

    @hookimpl
    def register_commands(self) -> list[click.Command]:
        """Return the command ``policy``."""
        return [make_command(self._services)]
