"""Audit events of a server's processes."""

from typing import Literal

from authz_server.audit.event import Event


class SettingsLoaded(Event, frozen=True, kw_only=True, tag="settings.loaded"):
    """A process read its settings file.

    Attributes:
        file: the path of the settings file.
        environment: ``production`` or ``development``.
        plugins: the names of the enabled plugins.
        problem: why the settings were refused; empty if they are in use.
    """

    file: str
    environment: str = ""
    issuer: str = ""
    plugins: tuple[str, ...] = ()
    problem: str = ""
    outcome: Literal["success", "refused"] = "success"


class ServerStarted(Event, frozen=True, kw_only=True, tag="server.started"):
    """A process started to serve."""

    version: str
    issuer: str
    process_id: int
    outcome: Literal["success"] = "success"


class ServerStopped(Event, frozen=True, kw_only=True, tag="server.stopped"):
    """A process stopped in an orderly way."""

    process_id: int
    outcome: Literal["success"] = "success"


#: The events, in the order of ``docs/events.md``.
EVENTS: tuple[type[Event], ...] = (SettingsLoaded, ServerStarted, ServerStopped)
