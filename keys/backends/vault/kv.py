"""Private keys in a Vault's KV engine, version 2: ``kv://MOUNT/PATH[?vault=NAME]``.

Version 7 of the ring is the secret ``PATH/7`` with two members: ``alg``, and ``private_key`` as PEM
(PKCS #8). A secret is written once, with ``cas=0``, so of several makers one gets a number and no
policy needs ``update``; what is written over it later is not read. Signing happens in
this process, with keys that it has read and keeps: it continues while the Vault is away, though
a process that starts meanwhile has no keys. Custody is weaker than transit's for the same reason.

A soft-deleted secret is not loaded any more; one deleted with its metadata is gone. A slash in the
mount is written ``%2F``.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import parse_qsl, unquote, urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from keys.backend import BackendView, Health, KeyBackend, Version
from keys.backends.in_process import InProcessBackend
from keys.backends.registry import BackendContext
from keys.backends.vault.client import VaultClient, share_client
from keys.backends.vault.errors import REFUSED_STATUS, data_of, is_not_held, require_success
from keys.errors import (
    BackendBroken,
    BackendDenied,
    BackendError,
    BackendUnavailable,
    KeysError,
    VersionUnusable,
)
from keys.jose.jwk import load_public_key, public_jwk
from keys.jose.signatures import PrivateKey, generate_private_key
from keys.plurals import counted

logger = logging.getLogger(__name__)

#: Each lost race means that another process added a version in between.
CREATE_ATTEMPTS = 50
#: The version of each secret that is read, even if a later one exists.
FIRST_WRITING = 1
KV_VERSION = "2"
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def open_backend(uri: str, context: BackendContext) -> KeyBackend:
    """Return the backend for ``uri``, without a request to the Vault.

    Raises:
        KeysError: the URI is malformed, or its Vault is not in the settings.
    """
    mount, path, vault = _parse(uri)
    client = share_client(context.vaults, vault, context.notify)
    ring = context.ring or path.rpartition("/")[2]
    return VaultKvBackend(client, mount, path, ring, experimental=context.experimental)


@dataclass(frozen=True, slots=True)
class _Secret:
    """A version in the Vault; the key is None if it is deleted."""

    alg: str
    created_at: datetime
    private_key: PrivateKey | None = field(repr=False)


class VaultKvBackend(InProcessBackend):
    """One folder of secrets, serving one ring.

    Args:
        client: the Vault.
        mount: the mount path of the engine.
        path: the folder, without slashes around it.
        ring: the only ring that it serves.
        experimental: permit experimental algorithms.
    """

    scheme = "kv"

    def __init__(
        self,
        client: VaultClient,
        mount: str,
        path: str,
        ring: str,
        *,
        experimental: bool = False,
    ) -> None:
        super().__init__(experimental=experimental)
        self._client = client
        self._engine = KvEngine(client, mount, path)
        self._name = self._engine.name
        self._ring = ring

    def describe_versions(self, ring: str) -> BackendView:
        """Read every version; a soft-deleted one is not shown, and counts as switched off.

        An unsound one is not shown either, but logged. A KV engine knows no floors.
        """
        numbers = self._engine.list_numbers() if ring == self._ring else []
        found = [(number, secret) for number in numbers if (secret := self._find_sound(number))]
        versions = tuple(
            Version(str(number), public_jwk(secret.private_key), secret.created_at)
            for number, secret in found
            if secret.private_key is not None
        )
        disabled = any(secret.private_key is None for _, secret in found)
        return BackendView(versions, sign_floor=None, verify_floor=None, disabled=disabled)

    def _find_sound(self, number: int) -> _Secret | None:
        try:
            return self._engine.read(number)
        except BackendBroken as error:
            logger.error("a key is not adopted: %s", error)  # noqa: TRY400 - the message has the cause
            return None

    def create(self, ring: str, alg: str) -> Version:
        """Make a key and write it under the next number that is not taken."""
        algorithm = self._require_allowed(alg)
        if ring != self._ring:
            raise BackendDenied(f"the secrets {self._name} are not of the ring {ring!r}")
        self._engine.require_versioned()
        private_key = generate_private_key(algorithm)
        secret = {"alg": alg, "private_key": _to_pem(private_key)}
        for _ in range(CREATE_ATTEMPTS):
            number = max(self._engine.list_numbers(), default=0) + 1
            created_at = self._engine.write(number, secret)
            if created_at is not None:
                return Version(str(number), public_jwk(private_key), created_at)
        raise BackendUnavailable(f"others keep adding versions to {self._name}", retry_after=1)

    def destroy(self, ring: str, verify_floor: str) -> None:
        """Delete the secrets below the floor with their metadata."""
        numbers = self._engine.list_numbers() if ring == self._ring else []
        if not _NUMBER.fullmatch(verify_floor) or int(verify_floor) not in numbers:
            raise VersionUnusable(f"version {verify_floor!r} of {ring!r} is not held")
        floor = int(verify_floor)
        for number in [number for number in numbers if number < floor]:
            self._engine.delete(number)
        self._forget_below(ring, floor)

    def health(self) -> Health:
        """List the versions, without reading any."""
        where = f"{self._name} at {self._client.address}"
        try:
            numbers = self._engine.list_numbers()
        except BackendError as error:
            detail = f"{error}; {counted(len(self._loaded), 'key is', 'keys are')} in memory"
            return Health(usable=False, detail=detail)
        return Health(usable=True, detail=f"{counted(len(numbers), 'version')} in {where}")

    def _load(self, ring: str, ref: str) -> tuple[PrivateKey, str]:
        is_number = ring == self._ring and _NUMBER.fullmatch(ref)
        secret = self._engine.read(int(ref)) if is_number else None
        if secret is None or secret.private_key is None:
            state = "not held" if secret is None else "soft-deleted"
            raise VersionUnusable(f"version {ref!r} of {ring!r} in {self._name} is {state}")
        return secret.private_key, secret.alg


class KvEngine:
    """Calls of the KV engine, version 2, for one folder of numbered secrets.

    Args:
        client: the Vault.
        mount: the mount path of the engine.
        path: the folder, without slashes around it.

    Attributes:
        name: mount and folder, for messages.
    """

    def __init__(self, client: VaultClient, mount: str, path: str) -> None:
        self.name = f"{mount}/{path}"
        self._client = client
        self._mount = mount
        self._data = f"{mount}/data/{path}"
        self._metadata = f"{mount}/metadata/{path}"
        self._is_versioned = False

    def list_numbers(self) -> list[int]:
        """Return the numbers of all secrets, lowest first; a folder that is not held has none."""
        reply = self._client.call("LIST", self._metadata, repeatable=True)
        if is_not_held(reply):
            return []
        body = require_success(reply, f"listing {self.name}")
        names = data_of(body).get("keys")
        if not isinstance(names, list):
            raise BackendBroken(f"the list of {self.name} was answered without names")
        return sorted(int(name) for name in names if _NUMBER.fullmatch(str(name)))

    def read(self, number: int) -> _Secret | None:
        """Return the first version of the secret ``number``, or None if there is none."""
        name = f"{self.name}/{number}"
        path = f"{self._data}/{number}?version={FIRST_WRITING}"
        reply = self._client.call("GET", path, repeatable=True)
        # A soft-deleted secret is answered 404 too, with its metadata.
        if not _member(reply.body, "data", "metadata", "deletion_time"):
            if is_not_held(reply):
                return None
            require_success(reply, f"reading {name}")
        with _sound(name):
            return _parse_secret(reply.body, name)

    def write(self, number: int, secret: Mapping[str, str]) -> datetime | None:
        """Write a new secret; return its creation time, or None if the number is taken."""
        name = f"{self.name}/{number}"
        body = {"options": {"cas": 0}, "data": secret}
        reply = self._client.call("POST", f"{self._data}/{number}", body)
        if reply.status == REFUSED_STATUS and number in self.list_numbers():
            return None
        shown = require_success(reply, f"writing {name}")
        with _sound(name):
            if _member(shown, "data", "version") != FIRST_WRITING:
                raise BackendBroken(f"{name} was written over something")
            return _moment(_member(shown, "data", "created_time"))

    def delete(self, number: int) -> None:
        """Delete a secret with its metadata and all its versions."""
        reply = self._client.call("DELETE", f"{self._metadata}/{number}")
        require_success(reply, f"deleting {self.name}/{number}")

    def require_versioned(self) -> None:
        """Raise BackendDenied unless the engine is of version 2; version 1 compares nothing."""
        if self._is_versioned:
            return
        reply = self._client.call("GET", f"sys/internal/ui/mounts/{self._mount}")
        options = _member(reply.body, "data", "options") or {}
        if not isinstance(options, Mapping) or options.get("version") != KV_VERSION:
            raise BackendDenied(f"{self._mount!r} is not a KV engine of version {KV_VERSION}")
        self._is_versioned = True


@contextmanager
def _sound(name: str) -> Iterator[None]:
    """Turn an error of a malformed secret into an alarm, without its content."""
    try:
        yield
    except BackendError:
        raise
    except (KeysError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BackendBroken(
            f"{name} holds no private key that can be read ({type(error).__name__})"
        ) from None


def _parse_secret(reply: object, name: str) -> _Secret:
    created_at = _moment(_member(reply, "data", "metadata", "created_time"))
    secret = _member(reply, "data", "data")
    if not isinstance(secret, Mapping):
        return _Secret("", created_at, None)
    alg, pem = secret.get("alg"), secret.get("private_key")
    if not isinstance(alg, str) or not isinstance(pem, str):
        raise BackendBroken(f"{name} lacks alg or private_key")
    private_key = load_pem_private_key(pem.encode(), password=None)
    if not isinstance(private_key, PrivateKey):
        raise BackendBroken(f"the private key in {name} is of an unexpected type")
    load_public_key(public_jwk(private_key), alg)
    return _Secret(alg, created_at, private_key)


def _member(value: object, *names: str) -> object:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _moment(text: object) -> datetime:
    # RFC 3339 with nanoseconds; datetime keeps microseconds.
    moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", str(text)))
    if moment.tzinfo is None:
        raise ValueError
    return moment


def _to_pem(private_key: PrivateKey) -> str:
    return private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _parse(uri: str) -> tuple[str, str, str]:
    parts = urlsplit(uri)
    mount, path = unquote(parts.netloc), parts.path.strip("/")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    segments = [*mount.split("/"), *path.split("/")]
    sound = all(_SEGMENT.fullmatch(segment) for segment in segments) and not parts.fragment
    if parts.scheme != "kv" or not sound or set(options) - {"vault"}:
        raise KeysError(f"a folder of secrets is named kv://MOUNT/PATH?vault=NAME, not {uri!r}")
    return mount, path, options.get("vault", "main")
