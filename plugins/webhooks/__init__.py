"""Send audit events to receivers by HTTP: signed, retried, and kept until they are delivered."""

from plugins.webhooks.plugin import Webhooks

__all__ = ["Webhooks"]
