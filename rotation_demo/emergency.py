"""A signing key is withdrawn under full traffic, and everything that follows is timed."""

import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any, TypeVar

from keys.lifecycle.rules import find_active_key
from keys.signing_key import KeyState, SigningKey
from rotation_demo.fast_clock import RING
from rotation_demo.installation import Installation
from rotation_demo.ledger import Ledger
from rotation_demo.traffic import Caller, Issued, Node, Traffic
from rotation_demo.vault import is_fenced
from rotation_demo.verifiers import VerifierProcess

POLL_SECONDS = 0.05
PROBE_SECONDS = 0.5
LIMIT_SECONDS = 30.0
#: How often the ring is frozen again where its standby began to sign meanwhile.
ATTEMPTS = 5
REASON = "found on a lost laptop"

Found = TypeVar("Found")


@dataclass
class Withdrawal:
    """What was seen of one revocation; times are seconds of the epoch.

    Attributes:
        kid: The withdrawn key's id.
        successor: The key that signs in its place.
        ordered_at: When the command was started.
        written_at: When the revocation was written, by its own record.
        signing_at: The first token by the successor, by node.
        refused_at: The first introspection that said inactive, by node.
        unpublished_at: The first JWKS without the key, by node.
        accepted_until: Until when a verifier accepted a token of the key.
        told: What the command printed.
        fenced: Whether OpenBao refuses to sign with it.
    """

    kid: str
    successor: SigningKey
    ordered_at: float
    written_at: float = 0.0
    signing_at: dict[str, float] = field(default_factory=dict)
    refused_at: dict[str, float] = field(default_factory=dict)
    unpublished_at: dict[str, float] = field(default_factory=dict)
    accepted_until: dict[str, float] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    fenced: bool = False

    def after(self, moments: dict[str, float]) -> dict[str, float]:
        """Return ``moments`` as seconds since the revocation was written."""
        return {name: round(at - self.written_at, 3) for name, at in moments.items()}


class Emergency:
    """Withdraws the key that signs, as the security team would.

    Args:
        installation: Where.
        traffic: Goes on meanwhile.
        verifiers: Are watched.
        ledger: What happened to the tokens.
        say: Prints a line.
    """

    def __init__(
        self,
        installation: Installation,
        traffic: Traffic,
        verifiers: Iterable[VerifierProcess],
        ledger: Ledger,
        say: Callable[[str], None],
    ) -> None:
        self._installation = installation
        self._traffic = traffic
        self._verifiers = tuple(verifiers)
        self._ledger = ledger
        self._say = say

    def run(self) -> Withdrawal:
        """Hold the ring, look what a revocation would mean, revoke, let the ring move again.

        Raises:
            TimeoutError: something did not follow.
        """
        command = self._installation.command
        self._say("EMERGENCY: the key that signs may have leaked. Hold everything, then look.")
        self._hold()
        active, standby = self._await_known_standby()
        dry_run = ("keys", "revoke", active.kid, "--reason", REASON, "--dry-run", "--json")
        self._tell_plan(json.loads(command(*dry_run, as_person=True))["impact"])
        withdrawal = self._withdraw(active, standby)
        withdrawal.fenced = is_fenced(self._installation.plan.key, active.version)
        command("keys", "unfreeze", RING, "--reason", "the leaked key is gone", as_person=True)
        self._tell(withdrawal)
        return withdrawal

    def _hold(self) -> None:
        """Freeze the ring while a key stands by, because a frozen ring makes none."""
        command = self._installation.command
        for _ in range(ATTEMPTS):
            _until(self._find_standby, "the ring has no standby")
            command("keys", "freeze", RING, "--reason", REASON, as_person=True)
            found = self._find_standby()
            if found and found[1].activate_at is None:
                return
            # The standby was about to sign when the command was called, and is none any more.
            command("keys", "unfreeze", RING, "--reason", "no key stands by", as_person=True)
        raise TimeoutError("the ring has no standby that waits")

    def _await_known_standby(self) -> tuple[SigningKey, SigningKey]:
        """Return the key that signs and the standby, once every verifier surely knows the latter.

        It is no exception then that it takes over. A real installation waits for nothing here: its
        standby is published for a whole interval.
        """
        prepublication = timedelta(seconds=self._installation.plan.clock.prepublication_seconds)

        def look() -> tuple[SigningKey, SigningKey] | None:
            found = self._find_standby()
            return found if found and _age(found[1]) >= prepublication else None

        return _until(look, "the standby was not published in time")

    def _find_standby(self) -> tuple[SigningKey, SigningKey] | None:
        """Return the key that signs and the one that stands by, if one does."""
        ring = self._installation.ring()
        active, standby = find_active_key(ring.keys, ring.loaded_at), ring.keys[-1]
        if active is None or standby.state is not KeyState.PUBLISHED or standby == active:
            return None
        return active, standby

    def _tell_plan(self, impact: dict[str, Any]) -> None:
        tokens = impact["tokens"]
        self._say(
            f"  keys revoke --dry-run: {tokens} of its tokens are in force by node 1's records; "
            f"introspection refuses them within {impact['introspection_refuses_within_seconds']} s,"
        )
        self._say(
            "  verifiers that never ask within "
            f"{impact['jwks_maximum_age_seconds']} s more, if they obey the JWKS's max-age."
        )

    def _withdraw(self, active: SigningKey, standby: SigningKey) -> Withdrawal:
        probe = _until(lambda: self._traffic.latest(active.kid), "the key signed nothing")
        withdrawal = Withdrawal(active.kid, standby, time.time())
        done = Event()
        with ThreadPoolExecutor(2 * len(self._installation.nodes) + 1) as pool:
            seen = [
                pool.submit(watch, node, probe, withdrawal)
                for node in self._installation.nodes
                for watch in (self._watch_introspection, self._watch_jwks)
            ]
            probing = pool.submit(self._probe, active.kid, done)
            try:
                self._revoke(withdrawal)
            finally:
                done.set()
            probing.result()
            self._await_followers(withdrawal, seen)
        return withdrawal

    def _probe(self, kid: str, done: Event) -> None:
        """Have every verifier try the newest token of that key, again and again, until done."""
        while not done.wait(PROBE_SECONDS):
            issued = self._traffic.latest(kid)
            for verifier in self._verifiers if issued else ():
                verifier.hand(*issued, probe=True)

    def _revoke(self, withdrawal: Withdrawal) -> None:
        words = ("keys", "revoke", withdrawal.kid, "--reason", REASON, "--json")
        withdrawal.told = json.loads(self._installation.command(*words, as_person=True))
        ring = self._installation.ring()
        revoked = next(key for key in ring.keys if key.kid == withdrawal.kid)
        withdrawal.written_at = _seconds(revoked.revoked_at)
        withdrawal.successor = next(key for key in ring.keys if key.kid == withdrawal.successor.kid)

    def _await_followers(self, withdrawal: Withdrawal, seen: list[Future[None]]) -> None:
        for watching in seen:
            watching.result()
        nodes = [node.name for node in self._installation.nodes]
        account = self._ledger.account(withdrawal.successor.kid)
        since = withdrawal.written_at
        _until(lambda: account.first_since(since).keys() >= set(nodes), "a node does not sign")
        withdrawal.signing_at = {node: account.first_since(since)[node] for node in nodes}
        kid = withdrawal.kid
        # Whoever asks another node next may accept it once more: only the last time counts.
        surely = self._installation.plan.clock.withdrawal_bound_seconds + 0.5
        time.sleep(max(withdrawal.written_at + surely - time.time(), 0))
        _until(
            lambda: all(kid in verifier.refused_from for verifier in self._verifiers),
            "a verifier still accepts the key",
        )
        withdrawal.accepted_until = {
            verifier.name: verifier.accepted_until.get(kid, withdrawal.written_at)
            for verifier in self._verifiers
        }

    def _watch_introspection(self, node: Node, probe: Issued, withdrawal: Withdrawal) -> None:
        caller = Caller(node, self._installation.callers)

        def refused() -> bool:
            # A token that expires meanwhile would be inactive for another reason.
            token = self._traffic.latest(probe.kid) or probe
            return caller.introspect(token.token).body == {"active": False}

        _until(refused, f"{node.name} still accepts the key")
        withdrawal.refused_at[node.name] = time.time()

    def _watch_jwks(self, node: Node, probe: Issued, withdrawal: Withdrawal) -> None:
        caller = Caller(node, self._installation.callers)

        def gone() -> bool:
            return all(key["kid"] != probe.kid for key in caller.jwks().body["keys"])

        _until(gone, f"{node.name} still publishes the key")
        withdrawal.unpublished_at[node.name] = time.time()

    def _tell(self, withdrawal: Withdrawal) -> None:
        say, after = self._say, withdrawal.after
        took = withdrawal.written_at - withdrawal.ordered_at
        fenced = withdrawal.told["seconds"].get("fenced", 0)
        say(
            f"  keys revoke {withdrawal.kid[:7]}: written {took:.2f} s after it was called, "
            f"fenced in OpenBao {fenced:.3f} s later:"
        )
        refuses = "refuses" if withdrawal.fenced else "DOES NOT REFUSE"
        say(f"  OpenBao {refuses} to sign with that version, even for root.")
        say("  Seconds after it was written:")
        rows = {
            "the standby signs": after(withdrawal.signing_at),
            "introspection says inactive": after(withdrawal.refused_at),
            "the JWKS is without the key": after(withdrawal.unpublished_at),
            "accepted last by": after(withdrawal.accepted_until),
        }
        for what, moments in rows.items():
            told = "   ".join(f"{name} {seconds:.2f}" for name, seconds in moments.items())
            say(f"    {what:<29}{told}")
        bound = self._installation.plan.clock.withdrawal_bound_seconds
        say(
            f"  Bound for verifiers that obey the max-age: R + C = {bound} s. One that keeps the "
            "JWKS longer"
        )
        say("  accepts the key for as long as it does so; nothing here can tell it.")


def _until(look: Callable[[], Found | None], otherwise: str) -> Found:
    """Return what ``look`` finds, asked again and again; TimeoutError with ``otherwise``."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(POLL_SECONDS)
    return found


def _age(key: SigningKey) -> timedelta:
    now = datetime.now(UTC)
    return now - (key.published_at or now)


def _seconds(at: datetime | None) -> float:
    if at is None:
        raise RuntimeError("the revocation has no time")
    return at.timestamp()
