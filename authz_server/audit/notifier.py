"""Notification: passes each event to everything that receives its kind."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from authz_server.errors import OAuthError

#: Receives an event. The audit log raises if it cannot record one; no other receiver raises.
Receiver: TypeAlias = Callable[[Any], None]
#: Passes an event on: an audit event, a key event or one that is only counted.
Notify: TypeAlias = Callable[[object], None]


class AuditUnavailable(OAuthError):  # noqa: N818 - the state of the sink, by which operators search
    """An event could not be recorded, so that the request fails with 503."""

    def __init__(self, detail: str) -> None:
        super().__init__("temporarily_unavailable", f"audit: {detail}")


class Notifier:
    """Passes each event to the receivers of its kind, in their order.

    Args:
        find_receivers: returns the receivers of a kind, which is the event's type. It is called at
            the first event of each kind, so that a process opens only the receivers that it uses.
    """

    def __init__(self, find_receivers: Callable[[type], Iterable[Receiver]]) -> None:
        self._find_receivers = find_receivers
        self._receivers: dict[type, tuple[Receiver, ...]] = {}

    def notify(self, event: object) -> None:
        """Pass an event on; a receiver that raises keeps it from those after it.

        Raises:
            AuditUnavailable: the event could not be recorded.
        """
        kind = type(event)
        try:
            receivers = self._receivers[kind]
        except KeyError:
            receivers = self._receivers[kind] = tuple(self._find_receivers(kind))
        for receive in receivers:
            receive(event)
