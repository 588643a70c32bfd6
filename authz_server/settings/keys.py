"""The tables ``[keys]`` and ``[keys.rings.NAME]``, with the constraints between them."""

import re
from typing import Annotated, Literal, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from authz_server.settings.constraints import Branch, RuleError, Secret, refuse
from authz_server.settings.vaults import VaultSettings
from keys.jose.algorithms import ALGORITHMS, allowed_algorithms
from keys.lifecycle.timing import Timing

DAY_SECONDS = 86_400
YEAR_SECONDS = 366 * DAY_SECONDS
DEFAULT_VAULT = "main"

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
# RFC 7512 writes its scheme without the slashes.
_BACKEND = re.compile(r"([a-z][a-z0-9_-]*://[!-~]*|pkcs11:[!-~]+)")
_VAULT_BACKEND = re.compile(r"(transit|kv)://(?P<path>[^/?#]+(/[^/?#]+)+)(\?(?P<options>[^?#]+))?")
_VAULT_OPTIONS = {"transit": {"vault", "allow_exportable"}, "kv": {"vault"}}
_LONGEST_BACKEND = 500
# These backends keep the keys of each ring apart; the URI of any other names a single key.
_SHARED_SCHEMES = frozenset({"sql", "file"})
_ENCRYPTED_SCHEMES = frozenset({"sql", "file"})
#: The rings of a file without rings, with their algorithms.
_DEFAULT_ALGORITHMS = {"es256": "ES256", "rs256": "RS256"}


class _Place(NamedTuple):
    """The location of a ring's keys; no two rings may have the same."""

    scheme: str
    path: str
    vault: str = ""


class RingSettings(Branch, frozen=True):
    """``[keys.rings.NAME]``: algorithm, backend and rotation of a key ring."""

    algorithm: str = "ES256"
    backend: str = "sql://"
    drive: Literal["self", "rotator", "follow"] = "self"
    prepublication_seconds: Annotated[int, Meta(ge=0, le=YEAR_SECONDS)] = 0
    rotation_interval_seconds: Annotated[int, Meta(ge=1, le=10 * YEAR_SECONDS)] = 30 * DAY_SECONDS

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            allowed = ", ".join(sorted(allowed_algorithms(experimental=False)))
            problem = f"{self.algorithm!r} is not a signing algorithm"
            refuse("algorithm", problem, f"Use one of {allowed}.")
        _parse_backend(self.backend)

    @property
    def vault(self) -> str:
        """The name of the Vault that holds its keys; empty if none does."""
        return _parse_backend(self.backend).vault


class KeySettings(Branch, frozen=True):
    """``[keys]``: the signing key rings and the durations that apply to all of them."""

    key_encryption_key: Secret | None = None
    default_ring: str = "es256"
    rings: dict[str, RingSettings] = msgspec.field(
        default_factory=lambda: {
            name: RingSettings(algorithm=algorithm)
            for name, algorithm in _DEFAULT_ALGORITHMS.items()
        }
    )
    vaults: dict[str, VaultSettings] = msgspec.field(default_factory=dict)
    jwks_maximum_age_seconds: Annotated[int, Meta(ge=1, le=DAY_SECONDS)] = 900
    refresh_interval_seconds: Annotated[int, Meta(ge=1, le=3_600)] = 5
    snapshot_lifetime_seconds: Annotated[int, Meta(ge=2, le=3_600)] = 120
    clock_tolerance_seconds: Annotated[int, Meta(ge=1, le=300)] = 5
    cautious_jwks_maximum_age_seconds: Annotated[int, Meta(ge=1, le=DAY_SECONDS)] = 60
    cautious_period_seconds: Annotated[int, Meta(ge=1, le=YEAR_SECONDS)] = DAY_SECONDS
    activation_gate: Literal["advisory", "binding"] = "advisory"
    reader_window_seconds: Annotated[int, Meta(ge=1, le=YEAR_SECONDS)] = 7 * DAY_SECONDS
    experimental_algorithms: bool = False

    def __post_init__(self) -> None:
        if self.refresh_interval_seconds >= self.snapshot_lifetime_seconds:
            refuse("refresh_interval_seconds", "must be less than snapshot_lifetime_seconds")
        for table in ("rings", "vaults"):
            for name in getattr(self, table):
                if not _NAME.fullmatch(name):
                    refuse(f"{table}.{name}", "a name here is up to 40 of a-z, 0-9 and -")
        if self.default_ring not in self.rings:
            refuse(
                "default_ring",
                f"there is no keys.rings.{self.default_ring}",
                self.remedy_for_ring(self.default_ring),
            )
        for name, ring in self.rings.items():
            if ALGORITHMS[ring.algorithm].experimental and not self.experimental_algorithms:
                refuse(
                    f"rings.{name}.algorithm",
                    f"{ring.algorithm} is experimental",
                    "Few verifiers support it yet; experimental_algorithms = true permits it.",
                )
        self._require_places()
        for name in self.rings:
            self._require_durations(name)

    def timing(self) -> Timing:
        """Return the durations that apply to all rings."""
        return Timing(
            jwks_maximum_age_seconds=self.jwks_maximum_age_seconds,
            refresh_interval_seconds=self.refresh_interval_seconds,
            snapshot_lifetime_seconds=self.snapshot_lifetime_seconds,
            clock_tolerance_seconds=self.clock_tolerance_seconds,
            cautious_jwks_maximum_age_seconds=min(
                self.cautious_jwks_maximum_age_seconds, self.jwks_maximum_age_seconds
            ),
            cautious_period_seconds=self.cautious_period_seconds,
        )

    def prepublication_seconds(self, ring: str) -> int:
        """Return how long a key of ``ring`` is published before it becomes active."""
        return self.rings[ring].prepublication_seconds or max(
            DAY_SECONDS, 4 * self.jwks_maximum_age_seconds
        )

    def remedy_for_ring(self, missing: str) -> str:
        """Return what to do about a setting that names a ring which is not in the settings."""
        if missing in _DEFAULT_ALGORITHMS:
            return "Tables [keys.rings.NAME] replace the default rings: list es256 and rs256, too."
        if not self.rings:
            return "Add a table [keys.rings.NAME]."
        return f"The rings are {', '.join(sorted(self.rings))}."

    def require_production(self) -> None:
        """Refuse development settings: keys in memory, or plain http to a remote Vault."""
        for name, ring in self.rings.items():
            if ring.backend.startswith("memory:"):
                refuse(f"keys.rings.{name}.backend", "keys in memory are for development only")
        for name, vault in self.vaults.items():
            try:
                vault.require_encrypted()
            except RuleError as error:
                raise RuleError(
                    f"keys.vaults.{name}.{error.key}", error.problem, error.remedy
                ) from error

    def _require_places(self) -> None:
        taken: dict[_Place, str] = {}
        for name, ring in self.rings.items():
            place, key = _parse_backend(ring.backend), f"rings.{name}.backend"
            if place.vault and place.vault not in self.vaults:
                refuse(
                    key,
                    f"there is no keys.vaults.{place.vault}",
                    "Another vault is named with ?vault=NAME at the end of the URI.",
                )
            if place in taken and place.scheme not in _SHARED_SCHEMES:
                refuse(key, f"the ring {taken[place]} has the same keys")
            taken[place] = name
            if place.scheme in _ENCRYPTED_SCHEMES and self.key_encryption_key is None:
                refuse(
                    "key_encryption_key",
                    "must be set",
                    f"The keys of the ring {name} are encrypted under it.",
                )

    def _require_durations(self, name: str) -> None:
        # The default is always long enough.
        if given := self.rings[name].prepublication_seconds:
            least = self.timing().minimum_prepublication_seconds
            if given < least:
                refuse(
                    f"rings.{name}.prepublication_seconds",
                    f"{given} is less than the {least} that verifiers may need to fetch a new key",
                    "It is at least jwks_maximum_age_seconds and twice both "
                    "refresh_interval_seconds and clock_tolerance_seconds.",
                )
        prepublication = self.prepublication_seconds(name)
        interval = self.rings[name].rotation_interval_seconds
        if interval < prepublication:
            refuse(
                f"rings.{name}.rotation_interval_seconds",
                f"{interval} is less than the {prepublication} for which a key is published before "
                "it becomes active",
            )


def _parse_backend(uri: str) -> _Place:
    """Return the location that a ring's URI names; the RuleError names only ``backend``."""
    if "pin-value" in uri:
        refuse("backend", "must not contain a secret", "Use pin-source=file:/PATH.")
    if not _BACKEND.fullmatch(uri) or len(uri) > _LONGEST_BACKEND:
        refuse(
            "backend",
            f"{uri[:80]!r} is not a backend",
            "Write it as scheme://, for example sql://.",
        )
    scheme = uri.partition(":")[0]
    if scheme not in _VAULT_OPTIONS:
        return _Place(scheme, uri)
    parts = _VAULT_BACKEND.fullmatch(uri)
    options = dict(parse_qsl(parts["options"] or "", keep_blank_values=True)) if parts else {}
    if parts is None or not options.keys() <= _VAULT_OPTIONS[scheme] or "" in options.values():
        refuse(
            "backend",
            f"{uri!r} names no key in a Vault",
            f"Write it as {scheme}://MOUNT/KEY, or {scheme}://MOUNT/KEY?vault=NAME.",
        )
    return _Place(scheme, parts["path"], options.get("vault", DEFAULT_VAULT))
