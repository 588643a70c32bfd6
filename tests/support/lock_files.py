"""Reading pyproject.toml's direct dependencies and the lock files made from them."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from itertools import chain

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.source_tree import ROOT

#: `backends` is `run` with the libraries of every key backend: what the image holds.
LOCKS = ("run", "backends", "build", "test", "apache", "dev", "bench")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Pin:
    """One locked distribution."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        (specifier,) = self.requirement.specifier
        return specifier.version if specifier.operator == "==" else ""

    def applies_here(self) -> bool:
        """Whether this Python on this machine needs it."""
        return self.requirement.marker is None or self.requirement.marker.evaluate()


@cache
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def direct(lock: str) -> dict[str, Requirement]:
    """Return the direct dependencies behind one lock file by their canonical name."""
    if lock == "run":
        written = project()["project"]["dependencies"]
    elif lock == "backends":
        extras = project()["project"]["optional-dependencies"].values()
        written = [*project()["project"]["dependencies"], *chain.from_iterable(extras)]
    else:
        written = project()["dependency-groups"][lock]
    return {canonicalize_name(r.name): r for r in map(Requirement, written)}


def lock_text(lock: str) -> str:
    return (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")


@cache
def locked(lock: str) -> dict[str, Pin]:
    """Return what a lock file pins by canonical name."""
    entries = lock_text(lock).replace("\\\n", " ").splitlines()
    pins = map(_pin, filter(None, map(str.strip, entries)))
    return {pin.name: pin for pin in pins}


def _pin(entry: str) -> Pin:
    written, *hashes = re.split(r"\s+(?=--hash=)", entry)
    return Pin(Requirement(written), tuple(h.strip() for h in hashes))
