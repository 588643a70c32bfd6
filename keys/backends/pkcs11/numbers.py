"""Unique version numbers on a token, with several concurrent makers.

PKCS#11 has neither unique labels nor compare-and-set, and a version is made before the store knows
it. So the makers agree through the labels of the private keys. A new key gets these labels in turn;
no ring's name contains ``~``::

    LABEL~draft      just generated
    LABEL~7          its maker claims 7
    LABEL-7          version 7, visible to all from here

A maker writes its claim, then reads all labels, and keeps the number if no other key has it. Of two
makers that claim the same number, the one that writes later reads the other's claim: at most one
keeps it, and the others claim a higher one after a random pause. A maker that died with a claim
leaves a gap.

The token must show every maker the same labels at once, as a single device does. SoftHSM does not:
its users are on one machine and exclude each other (``Module.alone``). With several devices that
are synchronised by copying, only one process at a time may create keys.
"""

import re
from collections.abc import Callable, Sequence
from random import SystemRandom
from typing import NamedTuple, Protocol

from keys.errors import BackendUnavailable

#: The system's: forked processes would share the state of any other.
_random = SystemRandom()

#: Each lost round means that another maker claimed the number too.
ROUNDS = 50
LONGEST_PAUSE_SECONDS = 0.05
MAXIMUM_DIGITS = 9
_NUMBER = re.compile(f"[1-9][0-9]{{0,{MAXIMUM_DIGITS - 1}}}")


class Register(NamedTuple):
    """The label of one private key and its CKA_ID."""

    label: str
    key_id: bytes


class Registers(Protocol):
    """The labels of the private keys of a token; a write is visible to all at once."""

    def read(self) -> Sequence[Register]:
        """Return every label."""

    def write(self, key_id: bytes, label: str) -> None:
        """Change the label of the key ``key_id``; BackendUnavailable if there is no such key."""

    def delete(self, key_id: bytes) -> None:
        """Delete a key, if it exists."""


def version_label(label: str, number: int) -> str:
    """Return the label of version ``number`` of the keys called ``label``."""
    return f"{label}-{number}"


def draft_label(label: str) -> str:
    """Return the label of a key without a number."""
    return f"{label}~draft"


def find_version(label: str, text: str) -> int | None:
    """Return the number in ``text`` if it is the label of a version of ``label``."""
    return _number_behind(f"{label}-", text)


def is_unfinished(label: str, text: str) -> bool:
    """Return whether ``text`` is the label of an unfinished key of ``label``."""
    return text.startswith(f"{label}~")


def take_number(
    registers: Registers, label: str, own: bytes, *, pause: Callable[[float], None]
) -> int:
    """Make the key ``own`` the next version of ``label`` and return its number.

    Raises:
        BackendUnavailable: other makers keep claiming the numbers, or deleted this key.
    """
    for _ in range(ROUNDS):
        number = 1 + max(_numbers_of_others(registers, label, own), default=0)
        registers.write(own, f"{label}~{number}")
        if number not in _numbers_of_others(registers, label, own):
            registers.write(own, version_label(label, number))
            return number
        pause(_random.uniform(0.0, LONGEST_PAUSE_SECONDS))
    raise BackendUnavailable(f"others keep adding versions to {label!r}", retry_after=1)


def _numbers_of_others(registers: Registers, label: str, own: bytes) -> set[int]:
    """Return the numbers that other keys than ``own`` have or claim."""
    texts = [register.label for register in registers.read() if register.key_id != own]
    found = {
        _number_behind(prefix, text) for prefix in (f"{label}-", f"{label}~") for text in texts
    }
    return {number for number in found if number is not None}


def _number_behind(prefix: str, text: str) -> int | None:
    digits = text.removeprefix(prefix)
    return int(digits) if digits != text and _NUMBER.fullmatch(digits) else None
