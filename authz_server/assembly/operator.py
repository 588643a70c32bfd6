"""The parts of an operator's command."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from authz_server.assembly.base import Clock, utc_now
from authz_server.assembly.services import Services
from authz_server.database.errors import describe_failure, find_sentence
from authz_server.database.orm import Database, open_database
from authz_server.database.schema import SchemaError
from authz_server.database.schema_guard import SchemaGuard
from authz_server.settings import STREAMS, Settings

if TYPE_CHECKING:
    from authz_server.audit.sink import AuditSink
    from keys.backends.vault.settings import VaultAccess

logger = logging.getLogger(__name__)


class OperatorServices(Services):
    """The parts of a command, which records what it changes."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        clock: Clock = utc_now,
        *,
        vaults: Mapping[str, VaultAccess] | None = None,
    ) -> None:
        super().__init__(settings, database, clock, vaults=vaults)
        #: Refuses changes of a schema that is another release's.
        self.schema_guard = SchemaGuard(database, settings.database)

    @cached_property
    def sink(self) -> AuditSink | None:
        """The audit file; None where the settings name a standard stream, which is the server's."""
        from authz_server.audit.sink import AuditSink

        destination = self.settings.audit.destination
        return None if destination in STREAMS else AuditSink(destination, self.clock)

    @cached_property
    def corrected_clock(self) -> Clock:
        """Returns the present time by the database's clock, by which servers compare dates."""

        def now() -> datetime:
            return self.clock() + self.clock_correction

        return now

    @cached_property
    def clock_correction(self) -> timedelta:
        """The database's clock minus this machine's; 0 if the difference is small."""
        if self.settings.database.parts.is_sqlite:  # it has no clock of its own
            return timedelta()
        from authz_server.database.clock import (
            LEAST_CORRECTION_SECONDS,
            measure_clock_offset_seconds,
        )

        with self.database.reading() as session:
            offset = measure_clock_offset_seconds(session)
        return timedelta(seconds=0 if abs(offset) < LEAST_CORRECTION_SECONDS else offset)

    def record_head(self) -> None:
        """Store the head of the records that the command wrote; a server's checkpoint names it."""
        sink = vars(self).get("sink")
        if sink is None or not sink.head.sequence:
            return
        from authz_server.audit.checkpoints import record_head

        try:
            record_head(self.database, sink.head, self.settings.audit.destination, self.clock())
        except (SQLAlchemyError, SchemaError) as error:
            logger.warning(
                "the end of the audit records is not stored: %s",
                find_sentence(error) or describe_failure(error),
            )

    def close(self) -> None:
        """Close the database and the audit file."""
        self.database.close()
        sink = vars(self).get("sink")
        if sink is not None:
            sink.close()


@contextmanager
def operator_services(
    settings: Settings,
    vaults: Mapping[str, VaultAccess] | None = None,
    *,
    warn: Callable[[str], None] = logger.warning,
) -> Iterator[OperatorServices]:
    """Yield the parts of a command; the database and the audit file are closed at the end.

    Args:
        settings: the checked settings.
        vaults: the access to each Vault, by name; None: the access of the server.
        warn: receives a sentence if the schema is another release's and was only read.
    """
    services = OperatorServices(settings, open_database(settings.database), utc_now, vaults=vaults)
    with ExitStack() as stack:
        stack.callback(services.close)
        stack.callback(services.record_head)
        stack.callback(services.schema_guard.report, warn)
        yield services
