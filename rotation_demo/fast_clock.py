"""The durations of the demonstration: those of a real installation, each much shorter."""

from dataclasses import dataclass

#: The ring that signs, the same word in settings, tables and commands.
RING = "es256"


@dataclass(frozen=True, slots=True, kw_only=True)
class FastClock:
    """How long everything takes.

    Attributes:
        jwks_maximum_age_seconds: How long verifiers keep the JWKS (C).
        refresh_seconds: How often a node reads the rings at least (R).
        clock_tolerance_seconds: How far a node's clock may be off (D).
        snapshot_seconds: The oldest reading that a node signs from (S).
        prepublication_seconds: How long a key is published before it signs (P).
        rotation_seconds: How long a key signs (T).
        token_seconds: How long a token lives.
    """

    jwks_maximum_age_seconds: int = 1
    refresh_seconds: int = 1
    clock_tolerance_seconds: int = 1
    snapshot_seconds: int = 3
    prepublication_seconds: int = 5
    rotation_seconds: int = 7
    token_seconds: int = 6

    @property
    def withdrawal_bound_seconds(self) -> int:
        """After so long no obedient verifier accepts a withdrawn key: R at the node, then C."""
        return self.refresh_seconds + self.jwks_maximum_age_seconds

    def in_words(self) -> str:
        """Return the durations by their letters."""
        return (
            f"C {self.jwks_maximum_age_seconds} s, R {self.refresh_seconds} s, "
            f"D {self.clock_tolerance_seconds} s, S {self.snapshot_seconds} s, "
            f"P {self.prepublication_seconds} s, T {self.rotation_seconds} s; "
            f"tokens live {self.token_seconds} s"
        )
