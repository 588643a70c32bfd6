"""Counters of a verifier, which any library of metrics can read. They do no I/O."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

REQUESTS = "authz_verifier_requests_total"
UNKNOWN_KEYS = "authz_verifier_unknown_keys_total"
FETCHES = "authz_verifier_fetches_total"
INTROSPECTIONS = "authz_verifier_introspections_total"
EVENTS = "authz_verifier_events_total"
POLLS = "authz_verifier_polls_total"
KEYS_AGE = "authz_verifier_keys_age_seconds"
KEYS_LEFT = "authz_verifier_keys_left_seconds"
BREAKER_OPEN = "authz_verifier_breaker_open"
CLOCK_OFFSET = "authz_verifier_clock_offset_seconds"

#: Each metric and its description.
DESCRIPTIONS = {
    REQUESTS: "Requests by outcome: accepted, no_token, or the error code.",
    UNKNOWN_KEYS: "Tokens whose kid is not in the key set.",
    FETCHES: "Fetches of keys and status lists by outcome.",
    INTROSPECTIONS: "Introspections by outcome: success, refused, failure, cached, or skipped.",
    EVENTS: "Security events by outcome: taken, repeated, refused, or unavailable.",
    POLLS: "Polls for security events by outcome.",
    KEYS_AGE: "Time since the keys were fetched.",
    KEYS_LEFT: "How long the keys may still be used if no fetch succeeds.",
    BREAKER_OPEN: "Whether introspection is paused after failures.",
    CLOCK_OFFSET: "This machine's clock minus that of the authorization server.",
}
#: The labels of a counter, in the order of their values.
_LABELS = {
    REQUESTS: ("outcome",),
    UNKNOWN_KEYS: (),
    FETCHES: ("document", "outcome"),
    INTROSPECTIONS: ("outcome",),
    EVENTS: ("outcome",),
    POLLS: ("outcome",),
}
#: Counted from 0: an alert on an increase does not see a counter that begins with 1.
_ZEROS: tuple[tuple[str, ...], ...] = (
    (UNKNOWN_KEYS,),
    *((FETCHES, name, end) for name in ("keys", "status_list") for end in ("success", "failure")),
    *((EVENTS, end) for end in ("taken", "repeated", "refused", "unavailable")),
    *((POLLS, end) for end in ("success", "failure")),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """The value of a metric.

    Attributes:
        name: of the metric, in Prometheus' form.
        kind: `counter` for one that only grows, `gauge` for any other.
        labels: their values by name.
        value: the value.
    """

    name: str
    kind: Literal["counter", "gauge"]
    labels: Mapping[str, str]
    value: float


class Counters:
    """Counts events. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, ...], int] = dict.fromkeys(_ZEROS, 0)

    def add(self, *key: str) -> None:
        """Add one.

        Args:
            key: the name of the metric, and the values of its labels.
        """
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + 1

    def samples(self) -> list[Sample]:
        """Return the counters, in the order of their names."""
        with self._lock:
            counts = sorted(self._counts.items())
        return [
            Sample(key[0], "counter", dict(zip(_LABELS[key[0]], key[1:], strict=True)), count)
            for key, count in counts
        ]

    def renew_lock(self) -> None:
        """Replace the lock after a fork: a thread of the parent may have held it."""
        self._lock = threading.Lock()


def render(samples: Iterable[Sample]) -> str:
    """Return samples in Prometheus' text format (version 0.0.4)."""
    lines: list[str] = []
    described = ""
    for sample in samples:
        if sample.name != described:
            described = sample.name
            lines.append(f"# HELP {described} {DESCRIPTIONS[described]}")
            lines.append(f"# TYPE {described} {sample.kind}")
        # The values of labels are words of this package.
        labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
        lines.append(
            f"{sample.name}{{{labels}}} {sample.value}"
            if labels
            else f"{sample.name} {sample.value}"
        )
    return "\n".join(lines) + "\n"
