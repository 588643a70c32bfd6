"""Signing keys on a PKCS#11 token: a hardware security module, a smart card, SoftHSM.

Version 7 of the keys called LABEL is the key pair whose private key has the label ``LABEL-7``; the
public key has the same CKA_ID. Key pairs made by other programs under such labels count, too, if
they were generated on the token and were never extractable. RSA keys sign with either RSA
algorithm, as the ring requires. A token cannot disable a single key, so that there is no fence.
"""

import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import Protocol, TypeVar

from keys.backend import BackendView, Capabilities, Health, Version
from keys.backends.pkcs11.keys import (
    ALGORITHM_NAMES,
    TokenKey,
    destroy_pair,
    find_pair,
    find_signer,
    make_pair,
    offered_algorithms,
    read_labels,
    write_label,
)
from keys.backends.pkcs11.module import OpenToken, get_module
from keys.backends.pkcs11.numbers import (
    Register,
    find_version,
    is_unfinished,
    take_number,
    version_label,
)
from keys.backends.pkcs11.uri import TokenLocation
from keys.errors import (
    BackendBroken,
    BackendDenied,
    BackendError,
    BackendUnavailable,
    VersionUnusable,
)
from keys.events import BackendAnswered, BackendFailed, Notify
from keys.jose.algorithms import Algorithm, get_algorithm

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Unfinished key pairs older than this are deleted; creating one takes seconds.
UNFINISHED_LIFETIME = timedelta(minutes=10)
#: The CKA_ID of a pair made here: this prefix, the microseconds since 1970, random bytes.
ID_PREFIX = b"az1"
_ID_TIME_BYTES = 8
_ID_CHANCE_BYTES = 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Pkcs11Backend:
    """Signs on a token.

    Args:
        uri: the URI, for the events.
        location: the token.
        labels: the label of a ring's keys; empty: each ring's own name.
        clock: returns the present time, timezone-aware.
        notify: receives the availability of the token.
    """

    scheme = "pkcs11"

    def __init__(
        self,
        uri: str,
        location: TokenLocation,
        labels: Mapping[str, str],
        *,
        clock: Callable[[], datetime],
        notify: Notify,
    ) -> None:
        self._uri = uri
        self._location = location
        self._labels = dict(labels)
        self._clock = clock
        self._notify = notify
        self._module = get_module(location.module)
        self._algorithms = ALGORITHM_NAMES
        self._answers: bool | None = None
        self._first_seen: dict[bytes, datetime] = {}

    @property
    def caps(self) -> Capabilities:
        """The token's capabilities; before the first connection, the largest possible ones."""
        return Capabilities(algs=self._algorithms, in_process=False)

    def describe_versions(self, ring: str) -> BackendView:
        """Return the valid key pairs of ``ring`` on the token.

        An invalid pair is skipped and logged. A token has no floors.
        """
        label = self._find_label(ring)
        keys = {} if label is None else self._run(lambda token: _find_keys(token, label))
        versions = tuple(
            Version(str(number), key.jwk, self._created_at(key))
            for number, key in sorted(keys.items())
            if key is not None
        )
        return BackendView(versions, sign_floor=None, verify_floor=None, disabled=False)

    def sign(self, ring: str, ref: str, alg: str, inputs: Sequence[bytes]) -> list[bytes]:
        """Sign on the token, one call per input; except for EdDSA, the token gets only a digest."""
        label = self._find_label(ring)
        if label is None or find_version(label, f"{label}-{ref}") is None:
            raise VersionUnusable(f"version {ref!r} of {ring!r} is not held")
        signed = self._run(lambda token: _sign(token, f"{label}-{ref}", alg, inputs))
        if signed is None:
            raise VersionUnusable(f"version {ref} of {ring!r} is not held, or is not for {alg}")
        return signed

    def create(self, ring: str, alg: str) -> Version:
        """Create a key pair on the token with the next number.

        Generating an RSA key can take seconds, in which this process cannot use the module
        otherwise. ``keys tick``, a process of its own, is the better place.
        """
        algorithm, label = get_algorithm(alg), self._find_label(ring)
        if label is None:
            raise BackendDenied(f"the URI of this token is not for the ring {ring!r}")
        with self._module.alone():
            return self._create(ring, label, algorithm)

    def _create(self, ring: str, label: str, algorithm: Algorithm) -> Version:
        registers, key_id = _TokenRegisters(self._run), self._new_id()
        self._delete_unfinished(registers, label)
        if algorithm.name not in self._algorithms:
            raise BackendDenied(
                f"token {self._location.token!r} cannot create keys for {algorithm.name}"
            )
        self._run(lambda token: make_pair(token.session, algorithm, label, key_id))
        number = take_number(registers, label, key_id, pause=sleep)
        key = self._run(lambda token: find_pair(token.session, version_label(label, number)))
        if key is None or key.key_id != key_id:
            raise BackendBroken(f"version {number} of {ring!r} is not the key that was made")
        return Version(str(number), key.jwk, self._created_at(key))

    def destroy(self, ring: str, verify_floor: str) -> None:
        """Delete the key pairs below the floor from the token, including invalid ones."""
        label = self._find_label(ring)
        registers = _TokenRegisters(self._run)
        held = {} if label is None else _numbers(registers.read(), label)
        floor = find_version(ring, f"{ring}-{verify_floor}")
        if floor is None or floor not in held.values():
            raise VersionUnusable(f"version {verify_floor!r} of {ring!r} is not held")
        with self._module.alone():
            for key_id in [key_id for key_id, number in held.items() if number < floor]:
                registers.delete(key_id)

    def forget(self, ring: str, ref: str) -> bool:
        """Drop the handle of the private key; the next signature looks it up again."""
        label = f"{self._find_label(ring) or ''}-{ref}"

        def work(token: OpenToken) -> bool:
            held = [name for name in token.found if name.partition(" ")[2] == label]
            for name in held:
                del token.found[name]
            return bool(held)

        try:
            return self._run(work)
        except BackendError:
            return False

    def health(self) -> Health:
        """Log in, if necessary, and list the keys on the token."""
        try:
            count = len(_TokenRegisters(self._run).read())
        except BackendError as error:
            return Health(usable=False, detail=str(error))
        offered = ", ".join(sorted(self._algorithms))
        return Health(usable=True, detail=f"{count} private keys; supports {offered}")

    def _run(self, work: Callable[[OpenToken], T]) -> T:
        def noting(token: OpenToken) -> T:
            self._algorithms = offered_algorithms(token)
            return work(token)

        try:
            done = self._module.run(self._location, noting)
        except BackendUnavailable as error:
            if self._answers is not False:
                self._answers = False
                self._notify(BackendFailed(self._uri, str(error)))
            raise
        if not self._answers:
            self._answers = True
            self._notify(BackendAnswered(self._uri))
        return done

    def _find_label(self, ring: str) -> str | None:
        return self._labels.get(ring) if self._labels else ring

    def _delete_unfinished(self, registers: "_TokenRegisters", label: str) -> None:
        for register in registers.read():
            made_at = _made_at(register.key_id) or self._clock()
            is_old = self._clock() - made_at > UNFINISHED_LIFETIME
            if is_old and is_unfinished(label, register.label):
                registers.delete(register.key_id)

    def _new_id(self) -> bytes:
        microseconds = (self._clock() - _EPOCH) // _MICROSECOND
        time = microseconds.to_bytes(_ID_TIME_BYTES)
        return ID_PREFIX + time + secrets.token_bytes(_ID_CHANCE_BYTES)

    def _created_at(self, key: TokenKey) -> datetime:
        known = _made_at(key.key_id) or key.started_on
        return known or self._first_seen.setdefault(key.key_id, self._clock())


class _Run(Protocol):
    def __call__(self, work: Callable[[OpenToken], T], /) -> T: ...


class _TokenRegisters:
    """The labels on a token (``keys.backends.pkcs11.numbers.Registers``)."""

    def __init__(self, run: "_Run") -> None:
        self._run = run

    def read(self) -> tuple[Register, ...]:
        return self._run(lambda token: read_labels(token.session))

    def write(self, key_id: bytes, label: str) -> None:
        self._run(lambda token: write_label(token.session, key_id, label))

    def delete(self, key_id: bytes) -> None:
        self._run(lambda token: destroy_pair(token.session, key_id))


def _numbers(registers: Iterable[Register], label: str) -> dict[bytes, int]:
    return {
        register.key_id: number
        for register in registers
        if (number := find_version(label, register.label)) is not None
    }


def _find_keys(token: OpenToken, label: str) -> dict[int, TokenKey | None]:
    """Return the key of each number in use; None for an invalid one."""
    keys: dict[int, TokenKey | None] = {}
    for register in read_labels(token.session):
        number = find_version(label, register.label)
        if number is None or number in keys:
            continue
        try:
            keys[number] = find_pair(token.session, register.label)
        except BackendBroken as error:
            logger.error("skipping a key: %s", error)  # noqa: TRY400 - the message has the cause
            keys[number] = None
    return keys


def _sign(token: OpenToken, label: str, alg: str, inputs: Sequence[bytes]) -> list[bytes] | None:
    # Cached with the session, because handles belong to it.
    signer: Callable[[bytes], bytes] | None = token.found.get(f"{alg} {label}")
    if signer is None:
        key = find_pair(token.session, label)
        signer = find_signer(key, alg) if key is not None else None
        if signer is None:
            return None
        token.found[f"{alg} {label}"] = signer
    return [signer(data) for data in inputs]


def _made_at(key_id: bytes) -> datetime | None:
    size = len(ID_PREFIX) + _ID_TIME_BYTES + _ID_CHANCE_BYTES
    if len(key_id) != size or not key_id.startswith(ID_PREFIX):
        return None
    microseconds = int.from_bytes(key_id[len(ID_PREFIX) : len(ID_PREFIX) + _ID_TIME_BYTES])
    return _EPOCH + microseconds * _MICROSECOND
