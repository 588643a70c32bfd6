"""Allow, refuse or narrow tokens by client, scope, source and time: rules in a TOML file."""

from plugins.policy.plugin import PolicyPlugin

__all__ = ["PolicyPlugin"]
