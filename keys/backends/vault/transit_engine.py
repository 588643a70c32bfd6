"""Calls of the transit engine for one key, and its validated replies."""

from base64 import b64decode, b64encode, urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256, sha384, sha512
from types import MappingProxyType
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from keys.backend import BackendView, TracedSignature, Version
from keys.backends.vault.client import VaultClient
from keys.backends.vault.errors import data_of, is_not_held, require_success
from keys.backends.vault.http import VaultReply, VaultRequest
from keys.backends.vault.policy import LEAKS
from keys.errors import BackendBroken, KeysError
from keys.jose.algorithms import ALGORITHMS
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
_DIGESTS: Mapping[str, Callable[[bytes], Any]] = MappingProxyType(
    {"sha256": sha256, "sha384": sha384, "sha512": sha512}
)
_NAMES = {"sha256": "sha2-256", "sha384": "sha2-384", "sha512": "sha2-512"}
#: Without these, transit signs with the longest salt that fits, which no JOSE library accepts.
_PSS = {"signature_algorithm": "pss", "salt_length": "hash"}
_PKCS1 = {"signature_algorithm": "pkcs1v15"}
_JWS = {"marshaling_algorithm": "jws"}
_SENSELESS = (AttributeError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class TransitKey:
    """The state of one transit key.

    Attributes:
        kind: its type in the transit engine.
        latest: its highest version.
        minimum_encryption: the configured floor for signing; zero: not set.
        view: the same as a :class:`BackendView`.
    """

    kind: str
    latest: int
    minimum_encryption: int
    view: BackendView

    def version(self, number: int) -> Version | None:
        """Return one version if it is listed."""
        return next((v for v in self.view.versions if v.ref == str(number)), None)


def find_leaks(data: Mapping[str, Any]) -> list[str]:
    """Return the settings that permit an export of the private key."""
    return [leak for leak in LEAKS if data.get(leak)]


def read_transit_key(data: Mapping[str, Any], name: str, *, allow_exportable: bool) -> TransitKey:
    """Return the key in the ``data`` of a reply.

    Versions below the floor for decryption are not shown by transit, public keys included.

    Raises:
        BackendBroken: it is of a type that does not sign here, may be exported, is another key, or
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


class ItemError(NamedTuple):
    """The error of transit for one input."""

    text: str


def signing_request(ref: str, alg: str, inputs: Sequence[bytes]) -> dict[str, Any]:
    """Return the body of a call that signs each input with exactly the version ``ref``.

    Where the algorithm begins with a digest, the digest is made here and the input stays here.
    """
    algorithm = ALGORITHMS[alg]
    batch: list[dict[str, str]] = []
    body: dict[str, Any] = {"key_version": int(ref), "batch_input": batch}
    digest = _DIGESTS[algorithm.hash_name] if algorithm.hash_name else None
    for data in inputs:
        sent = digest(data).digest() if digest else data
        batch.append({"input": b64encode(sent).decode()})
    if algorithm.hash_name is None:
        return body
    body |= {"prehashed": True, "hash_algorithm": _NAMES[algorithm.hash_name]}
    if algorithm.kty == "EC":
        return body | _JWS
    return body | (_PSS if alg.startswith("PS") else _PKCS1)


def read_signatures(
    reply: Mapping[str, Any], ref: str, alg: str, count: int
) -> list[TracedSignature | ItemError]:
    """Return for each of ``count`` inputs its signature in the form of JOSE, or its error.

    Raises:
        BackendBroken: the answer does not match the request, or has another version.
    """
    try:
        results = reply["data"]["batch_results"]
        request_id = str(reply["request_id"])
        if len(results) != count:
            raise BackendBroken(f"the Vault signed {len(results)} inputs of {count}")
        return [_read_item(item, ref, alg, request_id) for item in results]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BackendBroken(f"the Vault's signatures cannot be read: {error!r}") from error


def _read_item(
    item: Mapping[str, Any], ref: str, alg: str, request_id: str
) -> TracedSignature | ItemError:
    if item.get("error"):
        return ItemError(str(item["error"]))
    _, version, encoded = item["signature"].split(":", 2)
    if version != f"v{ref}":
        raise BackendBroken(f"{version} signed instead of version {ref}")
    if ALGORITHMS[alg].kty == "EC":
        signature = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    else:
        signature = b64decode(encoded, validate=True)
    return TracedSignature(signature, request_id)


class TransitEngine:
    """Calls of the transit engine for one key.

    Args:
        client: the Vault.
        mount: the mount path of the engine.
        key: the key's name.

    Attributes:
        name: mount and key, for messages.
    """

    def __init__(self, client: VaultClient, mount: str, key: str) -> None:
        self.name = f"{mount}/{key}"
        self._client = client
        self._key_path = f"{mount}/keys/{key}"
        # The algorithm goes into the body: with it in the path, a policy would need another path.
        self._sign_path = f"{mount}/sign/{key}"

    def find(self, deadline: float | None = None) -> Mapping[str, Any] | None:
        """Return the data of the key, or None if there is no such key."""
        reply = self._client.send(VaultRequest("GET", self._key_path), deadline=deadline)
        if is_not_held(reply):
            return None
        return data_of(require_success(reply, f"reading the transit key {self.name}"))

    def sign(self, body: Mapping[str, Any], *, avoid: str, deadline: float | None) -> VaultReply:
        """Return the reply to a body of ``signing_request``, with any status."""
        request = VaultRequest("POST", self._sign_path, body, repeatable=True, avoid=avoid)
        return self._client.send(request, deadline=deadline)

    def create(self, kind: str) -> Mapping[str, Any]:
        """Make the key; return its data.

        Transit answers a second creation with the key that is there, and does not show which.
        """
        body = {"type": kind, "exportable": False, "allow_plaintext_backup": False}
        return self._change("creating", "", body)

    def rotate(self) -> Mapping[str, Any]:
        """Add a version; return the key's data with it as the latest."""
        return self._change("rotating", "/rotate")

    def configure(self, settings: Mapping[str, int]) -> Mapping[str, Any]:
        """Set members of the key; return its data."""
        return self._change("configuring", "/config", settings)

    def trim(self, floor: int) -> None:
        """Delete the versions below ``floor``, which must not exceed the floors of the key."""
        self._change("trimming", "/trim", {"min_available_version": floor})

    def _change(
        self, act: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        reply = self._client.call("POST", self._key_path + path, body)
        return data_of(require_success(reply, f"{act} the transit key {self.name}"))
