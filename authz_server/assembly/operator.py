"""The parts of an operator's command."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property

from authz_server.assembly.services import Services, utc_now
from authz_server.audit.sink import AuditSink, is_stream
from authz_server.database.orm import open_database
from authz_server.settings import Settings
from keys.backends.vault.settings import VaultAccess


class OperatorServices(Services):
    """The parts of a command, which records what it changes."""

    @cached_property
    def sink(self) -> AuditSink | None:
        """The audit file. A standard stream is the server's: the stored row is then the record."""
        destination = self.settings.audit.destination
        return None if is_stream(destination) else AuditSink(destination, self.clock)


@contextmanager
def operator_services(
    settings: Settings, vaults: Mapping[str, VaultAccess] | None = None
) -> Iterator[OperatorServices]:
    """Yield the parts of a command; the database is closed at the end.

    Args:
        settings: checked already.
        vaults: how the Vaults are reached, and as whom; None: as the server.
    """
    services = OperatorServices(settings, open_database(settings.database), utc_now, vaults=vaults)
    try:
        yield services
    finally:
        services.database.close()
