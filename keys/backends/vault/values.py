"""Values in the answers of a Vault, which may be of any type."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from keys.errors import BackendUnavailable

#: In seconds, 31 years: a thread cannot wait for much longer.
LARGEST_NUMBER = 1_000_000_000


def number_of(data: Mapping[str, Any], name: str) -> int:
    """Return a number, such as a lease in seconds; 0 if it is absent or null.

    Raises:
        BackendUnavailable: it is not a number from 0, so that something else than a Vault answered.
    """
    value = data.get(name)
    if value is None:
        return 0
    # A boolean is an integer of Python.
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise BackendUnavailable(f"{name!r} was answered without a number", 1)
    return min(ceil(value), LARGEST_NUMBER)


def names_of(value: object) -> frozenset[str]:
    """Return the names in a list; none if it is something else."""
    return frozenset(map(str, value)) if isinstance(value, list) else frozenset()
