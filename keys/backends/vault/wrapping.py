"""Unwraps a secret id once, for all processes that share its file.

A wrapping token works once. If the first unwrapping fails, another party was first, so that is an
alarm; for the same reason the processes of one server must not race for it, and a restart must not
try again. The process that unwraps leaves the secret id beside the file, readable by this user
alone, bound to the digest of the wrapping token that it came from.
"""

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fcntl import LOCK_EX, flock
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

from keys.backends.vault.errors import data_of, require_success
from keys.backends.vault.http import VaultHttp, VaultRequest
from keys.backends.vault.settings import VaultAccess
from keys.errors import BackendDenied, BackendUnavailable, TokenRefusedError
from keys.events import Alarm, Notify
from keys.jose.compact import parse_json_object

logger = logging.getLogger(__name__)

UNWRAPPED_SUFFIX = ".unwrapped"
ALARM = "vault.secret_id_intercepted"


@dataclass(frozen=True, slots=True)
class UnwrappedSecret:
    """A secret id and the digest of the wrapping token that it came from."""

    digest: str
    secret_id: str = field(repr=False)

    def came_from(self, wrapping_token: str) -> bool:
        """Return whether it is from that wrapping token."""
        return compare_digest(self.digest, _digest(wrapping_token))


def unwrap_secret_id(
    wrapping_token: str,
    access: VaultAccess,
    http: VaultHttp,
    deadline: float,
    notify: Notify,
) -> UnwrappedSecret:
    """Return the secret id that ``wrapping_token`` wraps.

    Args:
        wrapping_token: the token in the secret id's file.
        access: the Vault, with the file's path.
        http: the same Vault.
        deadline: the monotonic time at which all of it must end.
        notify: receives the alarm.

    Raises:
        BackendDenied: the token was used, has expired or wraps something else; an alarm is raised.
        BackendUnavailable: the Vault cannot be reached.
    """
    with _locked(access.login.secret_id_file) as descriptor:
        held = _read(descriptor)
        if held is not None and held.came_from(wrapping_token):
            return held
        try:
            _check_origin(wrapping_token, access, http, deadline)
            secret_id = _unwrap(wrapping_token, http, deadline)
        except BackendDenied as error:
            logger.critical("a wrapped secret id may have been intercepted: %s", error)
            notify(Alarm(ALARM, access.login.secret_id_file, str(error)))
            raise
        unwrapped = UnwrappedSecret(_digest(wrapping_token), secret_id)
        _write(descriptor, unwrapped)
        return unwrapped


def _check_origin(
    wrapping_token: str, access: VaultAccess, http: VaultHttp, deadline: float
) -> None:
    # Before unwrapping: a forged token could wrap the secret id of a role that the forger reads.
    body = {"token": wrapping_token}
    request = VaultRequest("POST", "sys/wrapping/lookup", body)
    reply = http.send(request, "", deadline)
    shown = require_success(reply, "looking up the wrapped secret id: used before, or expired")
    origin = str(data_of(shown).get("creation_path"))
    login = access.login
    role = re.escape(login.role) if login.role else "[^/]+"
    namespace = f"(?:{re.escape(access.namespace.strip('/'))}/)?" if access.namespace else ""
    expected = f"{namespace}auth/{re.escape(login.mount or 'approle')}/role/{role}/secret-id"
    if not re.fullmatch(expected, origin):
        raise BackendDenied(f"the wrapping token was made at {origin}, not for this secret id")


def _unwrap(wrapping_token: str, http: VaultHttp, deadline: float) -> str:
    request = VaultRequest("POST", "sys/wrapping/unwrap", repeatable=False)
    reply = http.send(request, wrapping_token, deadline)
    shown = require_success(reply, "unwrapping the secret id: used before, or expired")
    if not shown:
        # No Vault answers so. If the token is used up, the next attempt raises the alarm.
        raise BackendUnavailable("the unwrapping of the secret id was answered without content", 1)
    secret_id = data_of(shown).get("secret_id")
    if not isinstance(secret_id, str) or not secret_id:
        raise BackendDenied("the wrapping token holds no secret id")
    return secret_id


@contextmanager
def _locked(secret_id_file: str) -> Iterator[int | None]:
    path = secret_id_file + UNWRAPPED_SUFFIX
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        logger.warning("%s cannot be kept, so this process alone can log in: %s", path, error)
        yield None
        return
    try:
        _set_owner(descriptor, secret_id_file)
        flock(descriptor, LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _set_owner(descriptor: int, secret_id_file: str) -> None:
    """Set the owner of the file to that of the secret id's file; a command may run as root."""
    os.fchmod(descriptor, 0o600)
    if os.geteuid() == 0:
        owner = Path(secret_id_file).stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _read(descriptor: int | None) -> UnwrappedSecret | None:
    if descriptor is None:
        return None
    try:
        content = parse_json_object(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
        return UnwrappedSecret(str(content["digest"]), str(content["secret_id"]))
    except (TokenRefusedError, KeyError):
        return None


def _write(descriptor: int | None, unwrapped: UnwrappedSecret) -> None:
    if descriptor is None:
        return
    content = {"digest": unwrapped.digest, "secret_id": unwrapped.secret_id}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(content).encode(), 0)
    os.fsync(descriptor)


def _digest(wrapping_token: str) -> str:
    return sha256(wrapping_token.encode()).hexdigest()
