"""A receiver of key events that keeps them."""

from typing import TypeVar

from keys.events import Alarm, KeyEvent

T = TypeVar("T")


class ReceivedEvents:
    """Keeps the key events that it is called with."""

    def __init__(self) -> None:
        self.all: list[KeyEvent] = []

    def __call__(self, event: KeyEvent) -> None:
        """Keep an event."""
        self.all.append(event)

    def of(self, kind: type[T]) -> list[T]:
        """Return the events of one kind."""
        return [event for event in self.all if isinstance(event, kind)]

    def alarms(self) -> list[str]:
        """Return the names of the alarms."""
        return [alarm.event for alarm in self.of(Alarm)]
