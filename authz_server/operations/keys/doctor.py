"""Check the safety of the keys: rings, clock, events and Vaults."""

from dataclasses import dataclass
from datetime import datetime

from authz_server.operations.keys.context import KeyContext
from authz_server.operations.keys.local_checks import examine_installation
from authz_server.operations.keys.vault_checks import examine_vaults
from keys.backends.vault.doctor import Finding, Level
from keys.events import Alarm

#: Failures of these checks are recorded as alarms.
ALARMS = frozenset({"privilege.too_wide", "key.exportable", "events.chain"})


@dataclass(frozen=True, slots=True)
class Examination:
    """The findings of an examination; ``safe`` is True if none of them is a failure."""

    at: datetime
    safe: bool
    findings: tuple[Finding, ...]


def examine(context: KeyContext) -> Examination:
    """Examine rings, clock, events and Vaults, and record alarms; no ring is changed."""
    findings = (*examine_installation(context), *examine_vaults(context))
    failures = [each for each in findings if each.level is Level.FAILURE]
    for failure in failures:
        if failure.check in ALARMS:
            context.services.notify(Alarm(failure.check, failure.subject, failure.detail))
    return Examination(context.now(), not failures, findings)
