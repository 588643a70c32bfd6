"""One run: an installation under steady traffic, its rotations, and perhaps an emergency."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keys.signing_key import SigningKey
from rotation_demo.emergency import Emergency, Withdrawal
from rotation_demo.installation import (
    AUDIENCE,
    ISSUER,
    Installation,
    Plan,
    running_installation,
)
from rotation_demo.ledger import KeyAccount, Ledger
from rotation_demo.reconciling import Reconciled
from rotation_demo.rotations import HEADING, Rotations, as_record, in_words
from rotation_demo.traffic import Traffic
from rotation_demo.verifiers import VerifierProcess, running_verifiers

TOKENS_PER_SECOND = 6.0
#: How long after the last change-over its key still signs, so that it counts.
_TAIL_SECONDS = 1.5

Say = Callable[[str], None]


@dataclass
class Result:
    """What came of a run.

    Attributes:
        rotations: The records of each key, the first key's first.
        withdrawal: The emergency, if there was one.
        tokens: How many were issued in all.
        verified: How many verifications there were.
        refused: How many tokens were refused that should not have been.
        refused_apart: How many tokens of the withdrawn key were refused, as they should be.
        issued_withdrawn: How many tokens were issued by the withdrawn key after it was withdrawn.
        failed_requests: What was answered instead of a token.
        reconciled: OpenBao's audit log against the nodes' records.
        complaints: What the logs of servers and rotator complain of.
        processes: The ids of the processes that took part.
    """

    rotations: list[dict[str, Any]] = field(default_factory=list)
    withdrawal: Withdrawal | None = None
    tokens: int = 0
    verified: int = 0
    refused: int = 0
    refused_apart: int = 0
    issued_withdrawn: int = 0
    failed_requests: list[str] = field(default_factory=list)
    reconciled: Reconciled | None = None
    complaints: list[str] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)


class Run:
    """An installation with its traffic and verifiers, all of it running.

    Args:
        installation: Serves.
        verifiers: Verify.
        ledger: Is written by all.
        say: Prints a line.
    """

    def __init__(
        self,
        installation: Installation,
        verifiers: Sequence[VerifierProcess],
        ledger: Ledger,
        say: Say,
    ) -> None:
        self.installation = installation
        self._verifiers = tuple(verifiers)
        self._ledger = ledger
        self._say = say
        self._names = [node.name for node in installation.nodes]
        self._traffic = Traffic(
            installation.nodes, installation.callers, verifiers, ledger, TOKENS_PER_SECOND
        )
        self._rotations = Rotations(installation, ledger, verifiers)
        self._withdrawal: Withdrawal | None = None

    def start(self) -> None:
        """Begin with the traffic."""
        self._traffic.start()
        self._rotations.start()
        self._say(HEADING)

    def rotate(self, wanted: int) -> None:
        """Follow the ring until it has changed over so many times more."""
        for key in self._rotations.await_number(self._rotations.number + wanted):
            self._tell(key)

    def emergency(self) -> None:
        """Withdraw the key that signs."""
        emergency = Emergency(
            self.installation, self._traffic, self._verifiers, self._ledger, self._say
        )
        self._withdrawal = emergency.run()

    def finish(self) -> Result:
        """End the traffic, wait until the last token has expired, and count."""
        time.sleep(_TAIL_SECONDS)
        self._rotations.end()
        self._traffic.end()
        for verifier in self._verifiers:
            verifier.finish()
        for key in self._rotations.rest():
            self._tell(key)
        return self._count()

    def _tell(self, key: SigningKey) -> None:
        number = self._rotations.seen.index(key)
        line = in_words(number, key, self._ledger.account(key.kid), self._names)
        withdrawn = self._withdrawal is not None and key.kid == self._withdrawal.kid
        self._say(line + ("  revoked: counted apart" if withdrawn else ""))

    def _count(self) -> Result:
        result = Result(
            withdrawal=self._withdrawal,
            tokens=self._ledger.tokens(),
            verified=self._ledger.checks(),
            failed_requests=list(self._ledger.failed_requests),
            processes=[
                *self.installation.started_processes,
                *(verifier.process_id for verifier in self._verifiers),
            ],
        )
        for number, key in enumerate(self._rotations.seen):
            account = self._ledger.account(key.kid)
            if not account.tokens:
                # It began to sign when the traffic had ended.
                continue
            record = as_record(number, key, account, self._names)
            refused, apart = self._judge(key.kid, account)
            result.refused += refused
            result.refused_apart += apart
            result.rotations.append(record | {"refused_wrongly": refused, "refused_apart": apart})
        if self._withdrawal is not None:
            account = self._ledger.account(self._withdrawal.kid)
            result.issued_withdrawn = account.issued_since(self._withdrawal.written_at)
        return result

    def _judge(self, kid: str, account: KeyAccount) -> tuple[int, int]:
        """Return how many of a key's tokens were refused wrongly, and how many rightly."""
        moments = [at for tokens in account.refused.values() for at, _ in tokens.values()]
        withdrawal = self._withdrawal
        if withdrawal is None or withdrawal.kid != kid:
            return len(moments), 0
        early = sum(at < withdrawal.written_at for at in moments)
        return early, len(moments) - early


@contextmanager
def running(plan: Plan, say: Say, directory: Path) -> Iterator[Run]:
    """Start the installation that ``plan`` describes, with verifiers that ask all of its nodes."""
    ledger = Ledger()
    with (
        running_installation(plan) as installation,
        running_verifiers(ISSUER, AUDIENCE, installation.jwks_urls, ledger, directory) as verifiers,
    ):
        yield Run(installation, verifiers, ledger, say)
