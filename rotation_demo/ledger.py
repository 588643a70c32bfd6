"""The tokens of each key, as issuers and verifiers report them."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock


@dataclass(slots=True)
class KeyAccount:
    """The tokens of one key.

    Attributes:
        issued_at: When each node issued them, in seconds of the epoch.
        checks: How often each verifier verified one of them.
        finished: How many have expired in the sight of each verifier.
        refused: The tokens that each verifier refused at least once, with when and why first.
    """

    issued_at: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    checks: dict[str, int] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)
    refused: dict[str, dict[object, tuple[float, str]]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    @property
    def tokens(self) -> int:
        """How many were issued."""
        return sum(map(len, self.issued_at.values()))

    def first_since(self, moment: float) -> dict[str, float]:
        """Return when each node issued its first token since ``moment``."""
        found = {}
        for node, times in list(self.issued_at.items()):
            later = [at for at in times if at >= moment]
            if later:
                found[node] = later[0]
        return found

    def issued_since(self, moment: float) -> int:
        """Return how many tokens were issued since ``moment``."""
        return sum(at >= moment for times in self.issued_at.values() for at in times)

    def refused_by(self) -> dict[str, int]:
        """Return how many tokens each verifier refused."""
        return {verifier: len(tokens) for verifier, tokens in self.refused.items()}


class Ledger:
    """Accounts by key; safe for threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._accounts: dict[str, KeyAccount] = defaultdict(KeyAccount)
        self.failed_requests: list[str] = []

    def issued(self, kid: str, node: str, at: float) -> None:
        """Note a token that ``node`` issued."""
        with self._lock:
            self._accounts[kid].issued_at[node].append(at)

    def failed(self, why: str) -> None:
        """Note a request for a token that was answered otherwise."""
        with self._lock:
            self.failed_requests.append(why)

    def reported(
        self, verifier: str, checks: Mapping[str, int], finished: Mapping[str, int]
    ) -> None:
        """Note what a verifier has counted by now, by key."""
        with self._lock:
            for kid, number in checks.items():
                self._accounts[kid].checks[verifier] = number
            for kid, number in finished.items():
                self._accounts[kid].finished[verifier] = number

    def checked(self, verifier: str, kid: str) -> None:
        """Note one more verification."""
        with self._lock:
            checks = self._accounts[kid].checks
            checks[verifier] = checks.get(verifier, 0) + 1

    def refused(self, verifier: str, kid: str, number: object, at: float, why: str) -> None:
        """Note that a verifier refused the token ``number``; its first refusal counts."""
        with self._lock:
            self._accounts[kid].refused[verifier].setdefault(number, (at, why))

    def account(self, kid: str) -> KeyAccount:
        """Return the account of a key; not to be changed."""
        with self._lock:
            return self._accounts[kid]

    def is_finished(self, kid: str, verifiers: tuple[str, ...]) -> bool:
        """Tell whether every token of a key that signs no more has expired for every verifier."""
        with self._lock:
            account = self._accounts[kid]
            return all(account.finished.get(each, 0) >= account.tokens for each in verifiers)

    def tokens(self) -> int:
        """Return how many tokens were issued in all."""
        with self._lock:
            return sum(account.tokens for account in self._accounts.values())

    def checks(self) -> int:
        """Return how many verifications were made in all."""
        with self._lock:
            return sum(sum(account.checks.values()) for account in self._accounts.values())
