"""Every signature in OpenBao's audit log, held against what the nodes say that they issued."""

import json
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from keys.lifecycle.rules import find_active_key
from rotation_demo.installation import Installation
from rotation_demo.vault import MOUNT

#: How long after its call a signature is recorded at the latest. Nodes sign without traffic too,
#: to prove that they are ready.
_RECORD_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What ``keys audit reconcile`` found.

    Attributes:
        calls: How often OpenBao was asked to sign.
        signatures: What it signed.
        recorded: How many of those the nodes have recorded.
        unaccounted: Calls that signed of which no node knows.
        unaccounted_after_forgery: The same, after root signed once behind the server's back.
    """

    calls: int
    signatures: int
    recorded: int
    unaccounted: int
    unaccounted_after_forgery: int


def reconcile(installation: Installation, say: Callable[[str], None]) -> Reconciled:
    """Compare, then sign once as root behind the server's back and compare again."""
    found = _compare(installation)
    say(
        f"keys audit reconcile: {found['signatures']:,} signatures by {found['calls']:,} calls in "
        f"OpenBao's log, {found['recorded']:,} in the nodes' records, "
        f"unaccounted: {found['unaccounted_count']}."
    )
    _forge(installation)
    later = _compare(installation)
    say(
        "Now somebody signs with the key behind the server's back. keys audit reconcile: "
        f"unaccounted: {later['unaccounted_count']}."
    )
    return Reconciled(
        calls=found["calls"],
        signatures=found["signatures"],
        recorded=found["recorded"],
        unaccounted=found["unaccounted_count"],
        unaccounted_after_forgery=later["unaccounted_count"],
    )


def _compare(installation: Installation) -> dict[str, int]:
    log = installation.plan.key.server.audit_path
    until = datetime.now(UTC).isoformat()
    time.sleep(_RECORD_SECONDS)
    words = ["keys", "audit", "reconcile", "--json", "--vault-log", log, "--until", until]
    for path in installation.record_files:
        words += ["--records", str(path)]
    found: dict[str, int] = json.loads(installation.command(*words, accepted=(0, 1)))
    return found


def _forge(installation: Installation) -> None:
    key, ring = installation.plan.key, installation.ring()
    active = find_active_key(ring.keys, ring.loaded_at)
    body = {
        "input": b64encode(b"not a token of ours").decode(),
        "key_version": active.version if active else 0,
    }
    key.server.admin().call("POST", f"{MOUNT}/sign/{key.name}", body)
