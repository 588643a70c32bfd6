"""Numbers for the versions on a token, none of them twice, whoever else makes keys there.

A PKCS#11 token keeps no label unique and knows no compare-and-set, so the makers agree among
themselves: Lamport's bakery algorithm (Communications of the ACM 17(8), 1974), the labels of the
private keys being its registers. A key passes through these labels, ``~`` being in no ring's name::

    LABEL~draft      just generated
    LABEL~choosing   its maker is looking for the highest number
    LABEL~7          its maker wants 7
    LABEL-7          version 7: only now anybody else uses it

Whoever wants a number waits until nobody is choosing; of several that want the same one, the lowest
CKA_ID has it and the others choose again. A maker that died while choosing has its key deleted: if
it was only slow, its next step finds no key and fails. One that died with a wish leaves a gap.

This needs a token that shows every maker the same labels at once, which one device does. SoftHSM
does not: its users are on one machine and exclude each other (``Module.alone``). Where several
devices are kept equal by copying, let one process at a time make keys.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from keys.errors import BackendUnavailable

#: Each lost round means that another maker got its number.
ROUNDS = 50
#: Choosing takes one reading of the labels; with this many pauses, its maker is gone.
PATIENCE = 500
PAUSE_SECONDS = 0.01
MAXIMUM_DIGITS = 9
_NUMBER = re.compile(f"[1-9][0-9]{{0,{MAXIMUM_DIGITS - 1}}}")


class Register(NamedTuple):
    """The label of one private key and its CKA_ID."""

    label: str
    key_id: bytes


class Registers(Protocol):
    """The labels of the private keys of a token; what is written is seen by all at once."""

    def read(self) -> Sequence[Register]:
        """Return every label there is."""

    def write(self, key_id: bytes, label: str) -> None:
        """Give the key ``key_id`` another label; BackendUnavailable if there is no such key."""

    def delete(self, key_id: bytes) -> None:
        """Delete a key, if there still is one of that id."""


def version_label(label: str, number: int) -> str:
    """Return the label of version ``number`` of the keys called ``label``."""
    return f"{label}-{number}"


def draft_label(label: str) -> str:
    """Return the label of a key that has no number yet."""
    return f"{label}~draft"


def find_version(label: str, text: str) -> int | None:
    """Return the number in ``text`` if that is the label of a version of ``label``."""
    return _number_behind(f"{label}-", text)


def is_unfinished(label: str, text: str) -> bool:
    """Tell whether ``text`` is the label of a key of ``label`` that is no version yet."""
    return text.startswith(f"{label}~")


def take_number(
    registers: Registers, label: str, own: bytes, *, pause: Callable[[float], None]
) -> int:
    """Make the key ``own`` the next version of ``label`` and return its number.

    Raises:
        BackendUnavailable: Others keep getting the numbers, or took this one for dead.
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
        # Whoever begins to choose later sees our number, so only these matter.
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
