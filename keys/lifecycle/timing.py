"""The durations that keep verifiers and signers in step."""

from dataclasses import dataclass
from datetime import datetime, timedelta

#: Added to the publication of every key, for clocks and verifiers that are slightly late.
REMOVAL_MARGIN_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The durations of an installation, for all of its rings.

    Attributes:
        jwks_maximum_age_seconds: how long verifiers may cache the JWKS (C).
        refresh_interval_seconds: the interval at which a node loads the rings (R).
        snapshot_lifetime_seconds: the largest age of a snapshot that a node may sign from (S).
        clock_tolerance_seconds: the largest offset of a node's clock (D).
        cautious_jwks_maximum_age_seconds: C for a while after an emergency.
        cautious_period_seconds: the length of that while.
    """

    jwks_maximum_age_seconds: int = 900
    refresh_interval_seconds: int = 5
    snapshot_lifetime_seconds: int = 120
    clock_tolerance_seconds: int = 5
    cautious_jwks_maximum_age_seconds: int = 60
    cautious_period_seconds: int = 86_400

    @property
    def minimum_prepublication_seconds(self) -> int:
        """The shortest pre-publication after which every verifier knows a key: C + 2R + 2D."""
        return (
            self.jwks_maximum_age_seconds
            + 2 * self.refresh_interval_seconds
            + 2 * self.clock_tolerance_seconds
        )

    @property
    def notice_seconds(self) -> int:
        """The time after a change by which every working node has read it: 2R + D."""
        return 2 * self.refresh_interval_seconds + self.clock_tolerance_seconds

    def remove_after(
        self, maximum_lifetime_seconds: int, stopped_at: datetime, fenced_at: datetime | None
    ) -> datetime:
        """Return when the last token of a key has certainly expired.

        Args:
            maximum_lifetime_seconds: the longest lifetime of a token while the key was active (L).
            stopped_at: when the key stopped signing by the plan.
            fenced_at: when its backend confirmed the fence; None: it cannot, so that a node with an
                outdated snapshot may have signed until the snapshot was too old.
        """
        if fenced_at is None:
            stop = stopped_at + timedelta(seconds=self.snapshot_lifetime_seconds)
        else:
            stop = max(stopped_at, fenced_at)
        return stop + timedelta(
            seconds=maximum_lifetime_seconds + REMOVAL_MARGIN_SECONDS + self.clock_tolerance_seconds
        )
