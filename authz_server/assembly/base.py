"""The parts of every process: settings, database, clock, and the receivers of events.

A part's module is imported when the part is made. A command so loads and opens only the parts that
it uses: ``client list`` opens no key backend, no Vault login, no plugin and no audit file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from authz_server.audit.event import STORED, Event
from authz_server.audit.notifier import Notifier, Notify, Receiver
from authz_server.database.errors import describe_failure
from authz_server.database.orm import Database
from authz_server.database.statistics import MANY, gather_statistics
from authz_server.settings import Settings

if TYPE_CHECKING:
    from authz_server.audit.latest_change import LatestChangeFile
    from authz_server.audit.sink import AuditSink
    from authz_server.key_rings.alarms import KeyAlarms
    from authz_server.plugin_manager import PluginManager
    from keys.backends.vault.settings import VaultAccess

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the present time."""
    return datetime.now(UTC)


class BaseServices:
    """The parts of every process: settings, database, clock, and the receivers of events.

    Args:
        settings: the checked settings.
        database: the open database.
        clock: returns the present time, timezone-aware.
        vaults: the access to each Vault, by name; None: the access of the server.

    Raises:
        PluginError: a part that uses the plugins was made, and a plugin cannot be used.
        KeysError: a part that uses the key backends was made, and a backend cannot be used.
        SettingsError: the key backends were opened, and a file of a Vault's login is missing or
            readable by others.
    """

    #: How long a notification waits for a plugin; None: as long as the plugin may take.
    patience_seconds: ClassVar[float | None] = None

    def __init__(
        self,
        settings: Settings,
        database: Database,
        clock: Clock = utc_now,
        *,
        vaults: Mapping[str, VaultAccess] | None = None,
    ) -> None:
        self.settings = settings
        self.database = database
        self.clock = clock
        self._vaults = vaults
        database.on_commit = self._keep_latest_change

    @cached_property
    def sink(self) -> AuditSink | None:
        """Writes the audit log; None: events go to the plugins only."""
        return None

    @cached_property
    def latest_change(self) -> LatestChangeFile | None:
        """Keeps the latest stored change outside of the database; None: it is not kept."""
        from authz_server.audit.latest_change import open_latest_change

        return open_latest_change(self.settings.audit)

    def _keep_latest_change(self, session: Session) -> None:
        """Keep the latest of the changes that a committed transaction has stored."""
        if STORED not in session.info or self.latest_change is None:
            return
        try:
            # That of a caller with limits finds the records within these alone.
            with self.database.reading() as reading:
                self.latest_change.keep(reading, session.info[STORED])
        except SQLAlchemyError as error:
            # The change is stored; a server tries again soon.
            logger.info("the latest change is not kept yet: %s", describe_failure(error))

    @cached_property
    def plugins(self) -> PluginManager:
        """The enabled plugins."""
        from authz_server.plugin_manager import PluginManager

        settings, services = self.settings.plugins, None
        if settings.enabled:
            from authz_server.assembly.plugin_services import PluginServices

            services = PluginServices(self.settings, self.clock, lambda: self)
        return PluginManager(
            settings.enabled,
            settings.settings,
            services=services,
            report=self.notify,
            call_seconds=settings.timeout_seconds,
            patience_seconds=self.patience_seconds,
        )

    @cached_property
    def notify(self) -> Notify:
        """Passes an event to its receivers; raises if it must be recorded and cannot be."""
        return Notifier(self.find_receivers).notify

    def find_receivers(self, kind: type) -> Iterator[Receiver]:
        """Yield the receivers of a kind of events; the audit log comes first and may refuse."""
        if issubclass(kind, Event):
            if self.sink is not None:
                yield self.sink.write
            if self.settings.plugins.enabled:
                yield from self._find_notified(kind)
        elif kind in self.key_alarms.kinds:
            yield self.key_alarms.receive

    def _find_notified(self, kind: type[Event]) -> Iterator[Receiver]:
        from authz_server.audit.server_events import ServerStopped

        # The end of the server is that of all notifications.
        if self.plugins.receives_events or kind is ServerStopped:
            yield self.plugins.emit
        if self.plugins.receives_revocations:
            yield self._report_revocation

    def _report_revocation(self, event: Event) -> None:
        from authz_server.hookspecs import find_revocation

        revocation = find_revocation(event)
        if revocation is not None:
            self.plugins.report_revocation(revocation)

    def open_recorders(self) -> None:
        """Open the audit log and the plugins now rather than at the first event.

        Raises:
            AuditUnavailable: nothing can be recorded.
            PluginError: a plugin cannot be used.
        """
        _ = self.sink
        if self.settings.plugins.enabled:
            _ = self.plugins

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Yield a session that is committed when the block ends; its changes are then reported.

        Raises:
            AuditUnavailable: a change could not be recorded; it is not made.
            PluginError: a change could not be reported to a plugin; it is not made.
        """
        with self.database.transaction() as session:
            yield session
            changed = STORED in session.info
            if changed:
                self.open_recorders()
        if changed:
            from authz_server.audit.records import report_changes

            with nullcontext() if self.sink is None else self.sink.one_sync():
                report_changes(self.notify, session)
        if MANY in session.info:
            gather_statistics(self.database.engine)

    @cached_property
    def key_alarms(self) -> KeyAlarms:
        """Records alarms of the key rings."""
        from authz_server.key_rings.alarms import KeyAlarms

        return KeyAlarms(self.notify)

    @cached_property
    def corrected_clock(self) -> Clock:
        """Returns the present time; of a server, by the database's clock."""
        return self.clock
