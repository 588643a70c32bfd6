"""Read the uses of transit keys from the audit log of a Vault or OpenBao.

Only replies count: a request without one had no effect that a caller saw. Members that the log
hashes are not needed: request ids, paths, times, counts and names stand in it as they are.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from keys.backends.vault.policy import VaultPlace
from keys.errors import TokenRefusedError
from keys.jose.compact import parse_json_object

#: Both products write the time, then the type.
_REQUEST, _HEAD_BYTES = b'"type":"request"', 100


class Use(StrEnum):
    """Uses of a key that an audit log records."""

    SIGNED = "signed"
    TAKEN = "taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """A successful call that used or exported a private key.

    Attributes:
        use: the kind of use.
        request_id: the id of the call, which its caller received too.
        at: the time of the call.
        path: its path, without the namespace.
        place: the place of the key.
        signatures: the number of signatures that it made.
        identity: the identity of the caller in the log.
        remote_address: the address of the caller.
    """

    use: Use
    request_id: str
    at: datetime
    path: str
    place: VaultPlace
    signatures: int
    identity: str
    remote_address: str


@dataclass(slots=True)
class AuditLogReader:
    """Reader of an audit log, line by line, of any length.

    Args:
        places: the keys to look for, all in one Vault.
        namespace: the namespace of the keys; empty: none.

    Attributes:
        unreadable: the number of lines that are not entries, as in a truncated log.
        entries: the number of entries.
        first_at: the time of the first entry.
        last_at: the time of the last entry.
    """

    places: frozenset[VaultPlace]
    namespace: str = ""
    unreadable: int = 0
    entries: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None

    def read(self, lines: Iterable[bytes]) -> Iterator[KeyUse]:
        """Yield every use of one of the keys, in the log's order."""
        paths = self._paths()
        # Parsing costs far more than looking, and most entries are of others.
        marks = tuple({f'"{path}'.encode() for path in paths})
        line = b""
        for line in lines:
            if self.first_at is not None and not _may_count(line, marks):
                self.entries += 1
                continue
            entry, at = _parse(line)
            if entry is None or at is None:
                self.unreadable += bool(line.strip())
                continue
            self.entries += 1
            self.first_at = self.first_at or at
            found = _key_use(entry, at, paths, self.namespace)
            if found is not None:
                yield found
        self.last_at = _parse(line)[1] or self.last_at

    def _paths(self) -> dict[str, tuple[Use, VaultPlace]]:
        paths = {}
        for place in self.places:
            paths[f"{place.mount}/sign/{place.name}"] = (Use.SIGNED, place)
            paths[f"{place.mount}/backup/{place.name}"] = (Use.TAKEN, place)
            for kind in ("signing-key", "encryption-key"):
                paths[f"{place.mount}/export/{kind}/{place.name}"] = (Use.TAKEN, place)
        return paths


def _may_count(line: bytes, marks: Iterable[bytes]) -> bool:
    if line.find(_REQUEST, 0, _HEAD_BYTES) >= 0:
        return False
    return any(mark in line for mark in marks)


def _parse(line: bytes) -> tuple[dict[str, Any] | None, datetime | None]:
    try:
        entry = parse_json_object(line)
        return entry, datetime.fromisoformat(_microseconds(str(entry["time"])))
    except (TokenRefusedError, ValueError, KeyError):
        return None, None


def _key_use(
    entry: Mapping[str, Any],
    at: datetime,
    paths: Mapping[str, tuple[Use, VaultPlace]],
    namespace: str,
) -> KeyUse | None:
    request = entry.get("request")
    if entry.get("type") != "response" or entry.get("error") or not isinstance(request, Mapping):
        return None
    path = str(request.get("path", ""))
    found = paths.get(path) or _longer(path, paths)
    within = request.get("namespace")
    held = str(within.get("path") or "").strip("/") if isinstance(within, Mapping) else ""
    if found is None or held != namespace.strip("/"):
        return None
    use, place = found
    signatures = _count(entry.get("response"), use)
    if not signatures:
        return None
    return KeyUse(
        use=use,
        request_id=str(request.get("id", "")),
        at=at,
        path=path,
        place=place,
        signatures=signatures,
        identity=_identity(entry.get("auth")),
        remote_address=str(request.get("remote_address", "")),
    )


def _longer(
    path: str, paths: Mapping[str, tuple[Use, VaultPlace]]
) -> tuple[Use, VaultPlace] | None:
    """Return what ``path`` is with one segment behind: a digest's name, or a version."""
    return paths.get(path.rpartition("/")[0])


def _count(response: object, use: Use) -> int:
    """Return the number of signatures in a reply; one, if the reply does not show them."""
    data = response.get("data") if isinstance(response, Mapping) else None
    if not isinstance(data, Mapping):
        return 1
    results = data.get("batch_results")
    if use is Use.SIGNED and isinstance(results, list):
        return sum(isinstance(each, Mapping) and "signature" in each for each in results)
    return 0 if "error" in data else 1


def _identity(auth: object) -> str:
    if not isinstance(auth, Mapping):
        return "unknown"
    name = str(auth.get("display_name") or "unnamed")
    metadata = auth.get("metadata")
    role = (
        metadata.get("role_name") or metadata.get("role") if isinstance(metadata, Mapping) else ""
    )
    entity = str(auth.get("entity_id") or "")
    return " ".join(part for part in (name, str(role or ""), entity) if part)


def _microseconds(text: str) -> str:
    """Return a time of RFC 3339 with no more digits than datetime keeps."""
    whole, point, rest = text.partition(".")
    if not point:
        return text
    digits = rest.rstrip("Z")
    return f"{whole}.{digits[:6].ljust(6, '0')}+00:00" if rest.endswith("Z") else text
