"""What transit shows of a key, read strictly: its versions, its floors, and what it must not be."""

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from keys.backend import BackendView, Version
from keys.errors import BackendBroken, KeysError
from keys.jose.jwk import public_jwk
from keys.jose.signatures import PublicKey

#: The types of transit keys that sign with each algorithm, the one to create first.
KEY_TYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ES256": ("ecdsa-p256",),
        "ES384": ("ecdsa-p384",),
        "ES512": ("ecdsa-p521",),
        "RS256": ("rsa-2048", "rsa-3072", "rsa-4096"),
        "PS256": ("rsa-2048", "rsa-3072", "rsa-4096"),
        "EdDSA": ("ed25519",),
    }
)
SIGNING_TYPES = frozenset(kind for kinds in KEY_TYPES.values() for kind in kinds)
NO_VERSIONS = BackendView((), sign_floor=None, verify_floor=None, disabled=False)
#: What lets a private key leave the Vault. Once switched on, neither can be switched off again.
LEAKS = ("exportable", "allow_plaintext_backup")
_SENSELESS = (AttributeError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class TransitKey:
    """One transit key as read.

    Attributes:
        kind: Its type, in transit's words.
        latest: Its highest version.
        minimum_encryption: The floor for signing as it is set; zero: not set.
        view: The same in this package's words.
    """

    kind: str
    latest: int
    minimum_encryption: int
    view: BackendView

    def version(self, number: int) -> Version | None:
        """Return one version if it is shown."""
        return next((v for v in self.view.versions if v.ref == str(number)), None)


def find_leaks(data: Mapping[str, Any]) -> list[str]:
    """Return the switches by which the private half of a key may leave the Vault, if any is on."""
    return [leak for leak in LEAKS if data.get(leak)]


def read_transit_key(data: Mapping[str, Any], name: str, *, allow_exportable: bool) -> TransitKey:
    """Return the key in the ``data`` of a reply.

    Versions below the floor for decryption are not shown by transit, public keys included.

    Raises:
        BackendBroken: It is of a type that does not sign here, may be exported, is another key, or
            makes no sense.
    """
    kind = str(data.get("type"))
    if kind not in SIGNING_TYPES:
        raise BackendBroken(f"the transit key {name} is of type {kind!r}, which signs no tokens")
    if data.get("derived"):
        raise BackendBroken(f"the transit key {name} is derived: its signatures need a context")
    leaks = find_leaks(data)
    if leaks and not allow_exportable:
        raise BackendBroken(f"the transit key {name} is {' and '.join(leaks)}: it may have left")
    own = name.rpartition("/")[2]
    if data.get("name", own) != own:
        raise BackendBroken(f"the answer about the transit key {name} is about {data['name']!r}")
    try:
        return _read(kind, data)
    except (*_SENSELESS, UnsupportedAlgorithm, KeysError) as error:
        raise BackendBroken(f"the transit key {name} cannot be read: {error}") from error


def _read(kind: str, data: Mapping[str, Any]) -> TransitKey:
    versions = [_version(kind, int(ref), shown) for ref, shown in data["keys"].items()]
    versions.sort(key=lambda version: int(version.ref))
    encryption, decryption = (
        int(data["min_encryption_version"]),
        int(data["min_decryption_version"]),
    )
    verify_floor = max(1, decryption, int(data.get("min_available_version") or 0))
    latest = int(data["latest_version"])
    # A floor revokes, so one that no such key can have is not believed.
    if max(encryption, verify_floor, *(int(version.ref) for version in versions)) > latest:
        raise ValueError(f"a floor or a version is above the latest version, {latest}")
    view = BackendView(
        tuple(versions),
        sign_floor=str(max(encryption, verify_floor)),
        verify_floor=str(verify_floor),
        disabled=bool(data.get("soft_deleted")),
    )
    return TransitKey(kind, latest, encryption, view)


def _version(kind: str, number: int, shown: Mapping[str, Any]) -> Version:
    created_at = datetime.fromisoformat(shown["creation_time"])
    if created_at.tzinfo is None:
        raise ValueError("a version's time has no zone")
    public = _public_key(kind, shown["public_key"])
    return Version(str(number), public_jwk(public), created_at)


def _public_key(kind: str, text: str) -> PublicKey:
    if kind == "ed25519":
        return Ed25519PublicKey.from_public_bytes(b64decode(text, validate=True))
    key = load_pem_public_key(text.encode())
    if not isinstance(key, PublicKey):
        raise TypeError("a public key is of an unexpected type")
    return key
