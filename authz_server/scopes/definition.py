"""A scope as a catalogue defines it."""

from dataclasses import dataclass
from typing import Literal

Risk = Literal["read", "write", "money"]
RISKS: tuple[Risk, ...] = ("read", "write", "money")


@dataclass(frozen=True, slots=True)
class ScopeDefinition:
    """One scope of a catalogue.

    Args:
        name: the canonical name, in slash form; tokens carry it.
        description: what the scope permits.
        interface: the group of operations it belongs to, such as ``mapper``.
        risk: what a stolen token with it could do.
        aliases: other spellings that a request may use.
        callback_partner: the scope of the operation that answers this one, or is answered by it.
        lifetime_cap_seconds: the longest life of a token with it; ``None``: the settings' cap.
    """

    name: str
    description: str
    interface: str
    risk: Risk
    aliases: tuple[str, ...] = ()
    callback_partner: str | None = None
    lifetime_cap_seconds: int | None = None
