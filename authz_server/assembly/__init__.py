"""The parts of a process, wired: for a server, for its health listener, for a command."""

from authz_server.assembly.services import Clock, Services, utc_now

__all__ = ["Clock", "Services", "utc_now"]
