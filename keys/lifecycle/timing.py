"""The durations that keep verifiers and signers in step, and what follows from them."""

from dataclasses import dataclass
from datetime import datetime, timedelta

#: Added to every key's stay in the JWKS, for clocks and verifiers that are a little late.
REMOVAL_MARGIN_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The durations of an installation, for all of its rings.

    Attributes:
        jwks_maximum_age_seconds: How long verifiers may keep the JWKS (C).
        refresh_interval_seconds: How often a node reads the rings (R).
        snapshot_lifetime_seconds: The oldest reading that a node may sign from (S).
        clock_tolerance_seconds: How far a node's clock may be off (D).
        cautious_jwks_maximum_age_seconds: C for a while after an emergency.
        cautious_period_seconds: How long that while is.
    """

    jwks_maximum_age_seconds: int = 900
    refresh_interval_seconds: int = 5
    snapshot_lifetime_seconds: int = 120
    clock_tolerance_seconds: int = 5
    cautious_jwks_maximum_age_seconds: int = 60
    cautious_period_seconds: int = 86_400

    @property
    def minimum_prepublication_seconds(self) -> int:
        """The shortest pre-publication that no obedient verifier can miss: C + 2R + 2D."""
        return (
            self.jwks_maximum_age_seconds
            + 2 * self.refresh_interval_seconds
            + 2 * self.clock_tolerance_seconds
        )

    @property
    def notice_seconds(self) -> int:
        """How long after a change every node that works has read it: 2R + D."""
        return 2 * self.refresh_interval_seconds + self.clock_tolerance_seconds

    def remove_after(
        self, maximum_lifetime_seconds: int, stopped_at: datetime, fenced_at: datetime | None
    ) -> datetime:
        """Return when the last token of a key has surely expired.

        Args:
            maximum_lifetime_seconds: The longest life of a token while the key was active (L).
            stopped_at: When the key stopped signing by the plan.
            fenced_at: When its backend confirmed that it cannot sign; None: it cannot confirm
                that, so a node with an old reading may have signed until that was too old.
        """
        if fenced_at is None:
            stop = stopped_at + timedelta(seconds=self.snapshot_lifetime_seconds)
        else:
            stop = max(stopped_at, fenced_at)
        return stop + timedelta(
            seconds=maximum_lifetime_seconds + REMOVAL_MARGIN_SECONDS + self.clock_tolerance_seconds
        )
