"""The legend of a calendar, which describes every mark of a picture in words."""

from typing import NamedTuple

from keys.lifecycle.calendar import CalendarRow, SpanKind
from keys.signing_key import KeyState


class Mark(NamedTuple):
    """A kind of mark in a picture.

    Attributes:
        name: its class in the picture.
        word: its displayed name.
        look: its colour and its shape or pattern.
        meaning: its meaning.
    """

    name: str
    word: str
    look: str
    meaning: str

    def sentence(self) -> str:
        """Return its name, look and meaning as text."""
        return f"{self.word} ({self.look}): {self.meaning}"


NOW, CROSS, MILESTONE = "now", "cross", "milestone"
MARKS = (
    Mark(SpanKind.PUBLISHED, "published", "blue, dots", "in the JWKS, does not sign yet"),
    Mark(SpanKind.SIGNS, "signs", "green, no pattern", "in the JWKS, signs new tokens"),
    Mark(
        SpanKind.VERIFIES,
        "verifies",
        "amber, slanting lines",
        "in the JWKS, does not sign; its tokens are accepted",
    ),
    Mark(
        SpanKind.TAINTED,
        "tainted",
        "purple, crossed lines",
        "not trusted to sign; its tokens are accepted until they expire",
    ),
    Mark(NOW, "now", "upright red line", "the time of this picture"),
    Mark(CROSS, "revoked", "red cross", "the key left the JWKS, its tokens are refused"),
    Mark(MILESTONE, "planned", "diamond", "a planned change, listed below the bars"),
)


def state_word(row: CalendarRow) -> str:
    """Return the state of a key in one or two words."""
    if row.signs:
        return "signs"
    if row.key.state is KeyState.PUBLISHED:
        return "stands by"
    return row.key.state.value
