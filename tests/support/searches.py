"""The number of generated inputs of a test: a quarter in `make test`, all in `make acceptance`."""

import os

_TRIES_ALL = os.environ.get("GENERATED_INPUTS") == "all"


def inputs(everything: int) -> int:
    """Return how many generated inputs to try where `make acceptance` tries `everything`."""
    return everything if _TRIES_ALL else everything // 4
