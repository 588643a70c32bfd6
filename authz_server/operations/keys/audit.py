"""Compare the signatures in a Vault's audit log with the audit records."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from authz_server.assembly import Services
from authz_server.operations.keys.policies import places_in
from authz_server.operations.keys.reconciliation import Period, Reconciliation, reconcile
from authz_server.settings import Settings
from keys.backends.vault.audit_log import AuditLogReader, KeyUse
from keys.errors import OrderRefusedError
from keys.events import Alarm

#: Calls of the last seconds may be in the log before they are in the records.
IN_FLIGHT = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """The numbers of entries and unreadable lines of a log, and its first and last time."""

    entries: int
    unreadable: int
    since: datetime | None
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call in the log that used or exported a private key.

    Attributes:
        request_id: the Vault's id of the call.
        at: the time of the call.
        path: its path, without the namespace.
        signatures: the number of signatures that it made.
        identity: the identity of the caller in the log.
        identity_is_ours: True if that identity made calls that are recorded.
        remote_address: the address of the caller.
    """

    request_id: str
    at: datetime
    path: str
    signatures: int
    identity: str
    identity_is_ours: bool
    remote_address: str

    def __str__(self) -> str:
        """Return the call as text, without its id."""
        at = f"{self.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        made = f"{self.signatures} at {self.path}"
        return f"{at}, {made}, by {self.identity} from {self.remote_address}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SurplusCall(Call):
    """A call that made more than the ``recorded`` signatures."""

    recorded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnseenRecord:
    """An audit record whose call is not in the log."""

    backend_request_id: str
    kid: str
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedTime:
    """The period that was compared.

    Attributes:
        since: its beginning; None: not known.
        until: its end.
        unjudged_seconds: the time from its end to the present.
        left_out: the number of calls in the log outside of it.
    """

    since: datetime | None
    until: datetime
    unjudged_seconds: int
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditResult:
    """A comparison of a Vault's audit log with the audit records.

    Attributes:
        vault: the name of the Vault.
        log: the summary of the log.
        calls: the number of calls that signed.
        signatures: the number of signatures that they made.
        recorded: the number of signatures in the records.
        unaccounted_count: the number of calls that signed and are not in the records.
        unaccounted: these calls, up to a limit.
        surplus: calls that made more signatures than are recorded.
        taken: calls that exported the private key.
        unseen_count: the number of records that are not in the log.
        unseen: these records, up to a limit.
        judged: the period that was compared.
    """

    vault: str
    log: LogSummary
    calls: int
    signatures: int
    recorded: int
    unaccounted_count: int
    unaccounted: tuple[Call, ...]
    surplus: tuple[SurplusCall, ...]
    taken: tuple[Call, ...]
    unseen_count: int
    unseen: tuple[UnseenRecord, ...]
    judged: JudgedTime

    @property
    def is_alarming(self) -> bool:
        """True if a call is not recorded, or exported a private key."""
        return bool(self.unaccounted_count or self.taken)


def reconcile_log(  # noqa: PLR0913 - what is compared, by name
    settings: Settings,
    vault: str,
    *,
    logs: Sequence[Path],
    records: Sequence[Path],
    since: datetime | None = None,
    until: datetime | None = None,
) -> AuditResult:
    """Compare a Vault's audit log with the audit records.

    Args:
        settings: the checked settings.
        vault: the name of the Vault in the settings.
        logs: the files of the log, oldest first; ``.gz`` too.
        records: the files of the audit records of every node.
        since: the beginning of the period; None: no beginning.
        until: the end of the period; None: some seconds ago.

    Raises:
        OrderRefusedError: no ring signs with transit there.
        OSError: a file cannot be read.
    """
    unjudged = timedelta(0) if until else IN_FLIGHT
    until = until or datetime.now(UTC) - IN_FLIGHT
    places = {place for place in places_in(settings, vault).values() if place.scheme == "transit"}
    if not places:
        raise OrderRefusedError(f"No ring signs with transit in the Vault {vault}.")
    reader = AuditLogReader(frozenset(places), settings.keys.vaults[vault].namespace)
    found = reconcile(reader, logs, records, Period(since, until))
    begins_at = since or reader.first_at
    if begins_at is not None and begins_at >= until:
        begins_at = None  # the log begins later
    judged = JudgedTime(
        since=begins_at,
        until=until,
        unjudged_seconds=int(unjudged.total_seconds()),
        left_out=found.left_out,
    )
    return _describe(vault, reader, found, judged)


def record_alarms(services: Services, result: AuditResult) -> None:
    """Record an alarm for each call that is not recorded or exported a private key."""
    for call in result.taken:
        services.notify(Alarm("key.taken", call.path, str(call)))
    for call in result.unaccounted:
        services.notify(Alarm("signature.unaccounted", call.request_id, str(call)))


def _describe(
    vault: str, reader: AuditLogReader, found: Reconciliation, judged: JudgedTime
) -> AuditResult:
    return AuditResult(
        vault=vault,
        log=LogSummary(
            entries=reader.entries,
            unreadable=reader.unreadable,
            since=reader.first_at,
            until=reader.last_at,
        ),
        calls=found.calls,
        signatures=found.signatures,
        recorded=found.recorded,
        unaccounted_count=found.unaccounted_count,
        unaccounted=tuple(Call(**_call(use, found)) for use in found.unaccounted),
        surplus=tuple(
            SurplusCall(**_call(use, found), recorded=recorded) for use, recorded in found.surplus
        ),
        taken=tuple(Call(**_call(use, found)) for use in found.taken),
        unseen_count=found.unseen_count,
        unseen=tuple(
            UnseenRecord(backend_request_id=request_id, kid=kid, time=at)
            for request_id, kid, at in found.unseen
        ),
        judged=judged,
    )


def _call(use: KeyUse, found: Reconciliation) -> dict[str, Any]:
    return {
        "request_id": use.request_id,
        "at": use.at,
        "path": use.path,
        "signatures": use.signatures,
        "identity": use.identity,
        "identity_is_ours": found.identities.get(use.identity, 0) > 0,
        "remote_address": use.remote_address,
    }
