"""Private keys in a Vault's KV engine, version 2: ``kv://MOUNT/PATH[?vault=NAME]``.

Version 7 of the ring is the secret ``PATH/7`` with two members: ``alg``, and ``private_key`` as PEM
(PKCS #8). A secret is written once, with ``cas=0``, so of several makers one gets a number and no
policy needs ``update``; what somebody writes over it later is not looked at. Signing happens in
this process, with keys that it has read and keeps: it goes on while the Vault is away, though a
process that starts meanwhile has no keys. Custody is weaker than transit's for the same reason.

A soft-deleted secret is not loaded any more; one deleted with its metadata is gone. A slash in the
mount is written ``%2F``.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from keys.backend import BackendView, Health, KeyBackend, Version
from keys.backends.in_process import InProcessBackend
from keys.backends.registry import BackendContext
from keys.backends.vault.errors import VaultNotFound, VaultRefused, vault_errors
from keys.backends.vault.session import VaultSession, share_session
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

logger = logging.getLogger(__name__)

#: Each lost race means that another process added a version in between.
CREATE_ATTEMPTS = 50
#: What is read of a secret, whatever was written over it later.
FIRST_WRITING = 1
KV_VERSION = "2"
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def open_backend(uri: str, context: BackendContext) -> KeyBackend:
    """Return the backend for ``uri``. Nothing is asked of the Vault yet.

    Raises:
        KeysError: The URI cannot be read, or its Vault is not in the settings.
    """
    mount, path, vault = _parse(uri)
    session = share_session(context.vaults, vault, context.observer)
    ring = context.ring or path.rpartition("/")[2]
    return VaultKvBackend(session, mount, path, ring, experimental=context.experimental)


@dataclass(frozen=True, slots=True)
class _Secret:
    """A version as the Vault holds it; the key is None once it is deleted."""

    alg: str
    created_at: datetime
    private_key: PrivateKey | None = field(repr=False)


class VaultKvBackend(InProcessBackend):
    """One folder of secrets, serving one ring.

    Args:
        session: The Vault.
        mount: Where the engine is mounted.
        path: The folder, without slashes around it.
        ring: The only ring that it serves.
        experimental: Whether experimental algorithms are switched on.
    """

    scheme = "kv"

    def __init__(
        self,
        session: VaultSession,
        mount: str,
        path: str,
        ring: str,
        *,
        experimental: bool = False,
    ) -> None:
        super().__init__(experimental=experimental)
        self._session = session
        self._mount = mount
        self._path = path
        self._ring = ring
        self._is_versioned = False

    @property
    def _name(self) -> str:
        return f"{self._mount}/{self._path}"

    def view(self, ring: str) -> BackendView:
        """Read every version; a soft-deleted one is not shown, and counts as switched off.

        An unsound one is not shown either, but logged. A KV engine knows no floors.
        """
        numbers = self._numbers() if ring == self._ring else []
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
            return self._read(number)
        except BackendBroken as error:
            logger.error("a key is not adopted: %s", error)  # noqa: TRY400 - the cause is said
            return None

    def create(self, ring: str, alg: str) -> Version:
        """Make a key and write it under the next number, unless somebody else just did."""
        algorithm = self._require_allowed(alg)
        if ring != self._ring:
            raise BackendDenied(f"the secrets {self._name} are not of the ring {ring!r}")
        self._require_versioned()
        private_key = generate_private_key(algorithm)
        secret = {"alg": alg, "private_key": _to_pem(private_key)}
        for _ in range(CREATE_ATTEMPTS):
            number = max(self._numbers(), default=0) + 1
            created_at = self._write(number, secret)
            if created_at is not None:
                return Version(str(number), public_jwk(private_key), created_at)
        raise BackendUnavailable(f"others keep adding versions to {self._name}", retry_after=1)

    def destroy(self, ring: str, verify_floor: str) -> None:
        """Delete the secrets below the floor with all that the Vault remembers of them."""
        numbers = self._numbers() if ring == self._ring else []
        if not _NUMBER.fullmatch(verify_floor) or int(verify_floor) not in numbers:
            raise VersionUnusable(f"version {verify_floor!r} of {ring!r} is not held")
        floor = int(verify_floor)
        for number in [number for number in numbers if number < floor]:
            with vault_errors(f"deleting {self._name}/{number}"):
                self._kv.delete_metadata_and_all_versions(
                    f"{self._path}/{number}", mount_point=self._mount
                )
        self._forget_below(ring, floor)

    def health(self) -> Health:
        """List the versions, without reading any."""
        where = f"{self._name} at {self._session.address}"
        try:
            numbers = self._numbers()
        except BackendError as error:
            detail = f"{error}; {len(self._loaded)} keys are in memory"
            return Health(usable=False, detail=detail)
        return Health(usable=True, detail=f"{len(numbers)} versions in {where}")

    def _load(self, ring: str, ref: str) -> tuple[PrivateKey, str]:
        is_number = ring == self._ring and _NUMBER.fullmatch(ref)
        secret = self._read(int(ref)) if is_number else None
        if secret is None or secret.private_key is None:
            state = "not held" if secret is None else "soft-deleted"
            raise VersionUnusable(f"version {ref!r} of {ring!r} in {self._name} is {state}")
        return secret.private_key, secret.alg

    # ------------------------------------------------------------------------- the Vault's side

    @property
    def _kv(self) -> Any:  # noqa: ANN401 - the library has no types
        return self._session.client.secrets.kv.v2

    def _numbers(self) -> list[int]:
        with vault_errors(f"listing {self._name}"):
            try:
                reply = self._kv.list_secrets(self._path, mount_point=self._mount)
            except VaultNotFound as error:
                # For a folder that it does not hold, an engine has no words; a path without an
                # engine has some.
                if error.errors:
                    raise
                return []
        names = _member(reply, "data", "keys")
        if not isinstance(names, list):
            raise BackendBroken(f"the list of {self._name} was answered without names")
        return sorted(int(name) for name in names if _NUMBER.fullmatch(str(name)))

    def _read(self, number: int) -> _Secret | None:
        name = f"{self._name}/{number}"
        with vault_errors(f"reading {name}"):
            try:
                reply = self._kv.read_secret_version(
                    f"{self._path}/{number}",
                    version=FIRST_WRITING,
                    mount_point=self._mount,
                    raise_on_deleted_version=False,
                )
            except VaultNotFound as error:
                if error.errors:
                    raise
                return None
        with _sound(name):
            return _parse_secret(reply, name)

    def _write(self, number: int, secret: Mapping[str, str]) -> datetime | None:
        name = f"{self._name}/{number}"
        with vault_errors(f"writing {name}"):
            try:
                reply = self._kv.create_or_update_secret(
                    f"{self._path}/{number}", dict(secret), cas=0, mount_point=self._mount
                )
            except VaultRefused:
                if number in self._numbers():
                    return None
                raise
        with _sound(name):
            if _member(reply, "data", "version") != FIRST_WRITING:
                raise BackendBroken(f"{name} was written over something")
            return _moment(_member(reply, "data", "created_time"))

    def _require_versioned(self) -> None:
        # An engine of version 1 would take the writing and compare nothing.
        if self._is_versioned:
            return
        reply = self._session.call("GET", f"sys/internal/ui/mounts/{self._mount}")
        options = _member(reply.body, "data", "options") or {}
        if not isinstance(options, Mapping) or options.get("version") != KV_VERSION:
            raise BackendDenied(f"{self._mount!r} is no KV engine of version {KV_VERSION}")
        self._is_versioned = True


@contextmanager
def _sound(name: str) -> Iterator[None]:
    """Turn what an unsound secret does into an alarm, without repeating any of it."""
    try:
        yield
    except BackendError:
        raise
    except (KeysError, ValueError, TypeError) as error:
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
