"""The parts of a process and their wiring: for a server, a health listener or a command."""

from authz_server.assembly.base import Clock, utc_now
from authz_server.assembly.services import Services

__all__ = ["Clock", "Services", "utc_now"]
