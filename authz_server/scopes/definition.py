"""Definition of a scope in a catalogue."""

from dataclasses import dataclass
from typing import Literal

Risk = Literal["read", "write", "money"]
RISKS: tuple[Risk, ...] = ("read", "write", "money")


@dataclass(frozen=True, slots=True)
class ScopeDefinition:
    """One scope of a catalogue.

    Args:
        name: the canonical name in slash form, as tokens carry it.
        description: what the scope permits.
        interface: the group of operations, such as ``mapper``.
        risk: the damage that a stolen token with this scope can do.
        aliases: other spellings that a request may use.
        callback_partner: the scope of the operation at the other end of a callback.
        lifetime_cap_seconds: the longest life of a token with this scope; ``None``: the configured
            maximum.
    """

    name: str
    description: str
    interface: str
    risk: Risk
    aliases: tuple[str, ...] = ()
    callback_partner: str | None = None
    lifetime_cap_seconds: int | None = None
