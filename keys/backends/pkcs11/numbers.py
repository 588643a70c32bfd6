"""Unique version numbers on a token, with several concurrent makers.

PKCS#11 has neither unique labels nor compare-and-set. The makers agree by Lamport's bakery
algorithm (Communications of the ACM 17(8), 1974), with the labels of the private keys as its
registers. A new key gets these labels in turn; no ring's name contains ``~``::

    LABEL~draft      just generated
    LABEL~choosing   its maker is looking for the highest number
    LABEL~7          its maker claims 7
    LABEL-7          version 7, visible to all from here

A maker waits until no other maker is choosing. Of several that claim the same number, the lowest
CKA_ID gets it and the others choose again. The key of a maker that died while choosing is deleted;
if the maker was only slow, its next step finds no key and fails. A maker that died with a claim
leaves a gap.

The token must show every maker the same labels at once, as a single device does. SoftHSM does not:
its users are on one machine and exclude each other (``Module.alone``). With several devices that
are synchronised by copying, only one process at a time may create keys.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from keys.errors import BackendUnavailable

#: Each lost round means that another maker got the number.
ROUNDS = 50
#: Choosing takes one read of the labels; after this many pauses the maker is considered gone.
PATIENCE = 500
PAUSE_SECONDS = 0.01
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
        BackendUnavailable: other makers keep getting the numbers, or deleted this key.
    """
    for _ in range(ROUNDS):
        registers.write(own, _choosing_label(label))
        number = 1 + max((n for _, n in _numbers(registers, label)), default=0)
        registers.write(own, f"{label}~{number}")
        _wait_for_choosers(registers, label, pause)
        holders = {key_id for key_id, n in _numbers(registers, label) if n == number}
        finished = {r.key_id for r in registers.read() if r.label == version_label(label, number)}
        if not finished and own == min(holders, default=b""):
            registers.write(own, version_label(label, number))
            return number
    raise BackendUnavailable(f"others keep adding versions to {label!r}", retry_after=1)


def _numbers(registers: Registers, label: str) -> list[tuple[bytes, int]]:
    return [
        (register.key_id, number)
        for register in registers.read()
        for number in (
            find_version(label, register.label),
            _number_behind(f"{label}~", register.label),
        )
        if number is not None
    ]


def _wait_for_choosers(registers: Registers, label: str, pause: Callable[[float], None]) -> None:
    choosers = _choosers(registers, label)
    for _ in range(PATIENCE):
        # Makers that start later see our number, so that only these matter.
        choosers &= _choosers(registers, label)
        if not choosers:
            return
        pause(PAUSE_SECONDS)
    for key_id in choosers:
        registers.delete(key_id)


def _choosers(registers: Registers, label: str) -> set[bytes]:
    choosing = _choosing_label(label)
    return {register.key_id for register in registers.read() if register.label == choosing}


def _choosing_label(label: str) -> str:
    return f"{label}~choosing"


def _number_behind(prefix: str, text: str) -> int | None:
    digits = text.removeprefix(prefix)
    return int(digits) if digits != text and _NUMBER.fullmatch(digits) else None
