"""PKCS#11 modules and sessions: one session per token, used by one thread at a time.

Modules are initialised without locking of their own, so that every call into a module holds this
module's lock. A session belongs to its process: after a fork the child initialises the module again
(PKCS#11 3.1, 5.4: C_Initialize) and logs in again.
"""

import fcntl
import hmac
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import Any, TypeVar

import pkcs11
from pkcs11 import exceptions as p11
from pkcs11.types import Session, Token

from keys.backends.pkcs11.uri import TokenLocation
from keys.errors import BackendDenied, BackendUnavailable
from keys.forks import on_fork

T = TypeVar("T")

#: Pause after a failed connection: modules of absent devices block.
RETRY_AFTER_SECONDS = 1
#: Longest wait of a thread for other threads.
LOCK_SECONDS = 5.0
#: Longest wait to create a key while other processes do, for example an RSA key.
ALONE_SECONDS = 60.0
PAUSE_SECONDS = 0.01
#: Refusals of the token; a new session would get the same.
REFUSALS = (
    p11.ArgumentsBad,
    p11.AttributeReadOnly,
    p11.AttributeTypeInvalid,
    p11.AttributeValueInvalid,
    p11.DomainParamsInvalid,
    p11.FunctionNotSupported,
    p11.FunctionRejected,
    p11.KeySizeRange,
    p11.MechanismInvalid,
    p11.MechanismParamInvalid,
    p11.MultipleTokensReturned,
    p11.PinExpired,
    p11.PinIncorrect,
    p11.PinInvalid,
    p11.PinLenRange,
    p11.PinLocked,
    p11.SessionReadOnly,
    p11.TemplateIncomplete,
    p11.TemplateInconsistent,
    p11.TokenWriteProtected,
    p11.UserPinNotInitialized,
)


class OpenToken:
    """A session with a logged-in user.

    Attributes:
        session: only for the holder of the module's lock.
        mechanisms: the token's mechanisms with the largest key size of each.
        found: a cache with the lifetime of the session, for its users.
    """

    def __init__(self, token: Token, session: Session) -> None:
        self.session = session
        self.mechanisms: dict[int, int] = {
            mechanism: token.slot.get_mechanism_info(mechanism).max_key_length or 0
            for mechanism in token.slot.get_mechanisms()
        }
        self.found: dict[str, Any] = {}


class Module:
    """A PKCS#11 module in this process; ``get_module`` returns the only instance for a path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._library: Any = None
        self._tokens: dict[TokenLocation, OpenToken] = {}
        self._inherited = False
        self._retry_at: dict[TokenLocation, float] = {}
        self._refused_pins: dict[TokenLocation, bytes] = {}
        self._lock = Lock()

    def run(self, location: TokenLocation, work: Callable[[OpenToken], T]) -> T:
        """Return ``work(token)``; call it once more with a new session if the session was lost.

        Raises:
            BackendUnavailable: the token is away, or the module is busy.
            BackendDenied: the token refused, for example the PIN.
        """
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            raise BackendUnavailable(f"{self._path} is busy", RETRY_AFTER_SECONDS)
        try:
            return self._run(location, work)
        except REFUSALS as error:
            raise BackendDenied(f"token {location.token!r} refused: {_name(error)}") from error
        except p11.PKCS11Error as error:
            raise BackendUnavailable(
                f"token {location.token!r} is away: {_name(error)}", RETRY_AFTER_SECONDS
            ) from error
        finally:
            self._lock.release()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Exclude other threads and processes of this machine that use this context manager.

        For changes of a token: SoftHSM shows other processes half of a change. The lock is on the
        file of the module, which all of them can read.

        Raises:
            BackendUnavailable: others held the lock for too long.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise BackendUnavailable(
                f"{self._path}: {error.strerror}", RETRY_AFTER_SECONDS
            ) from error
        try:
            _lock(descriptor, self._path)
            yield
        finally:
            # Unlock explicitly: a child that was forked meanwhile holds the file open, too.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _run(self, location: TokenLocation, work: Callable[[OpenToken], T]) -> T:
        held = self._tokens.get(location)
        if held is not None:
            try:
                return work(held)
            except REFUSALS:
                raise
            except p11.PKCS11Error:
                self._forget(location)
        opened = self._open(location)
        try:
            return work(opened)
        except REFUSALS:
            raise
        except p11.PKCS11Error:
            self._forget(location)
            raise

    def _forget(self, location: TokenLocation) -> None:
        with suppress(p11.PKCS11Error):
            self._tokens.pop(location).session.close()

    def _open(self, location: TokenLocation) -> OpenToken:
        if monotonic() < self._retry_at.get(location, 0.0):
            raise BackendUnavailable(
                f"token {location.token!r} was away a moment ago", RETRY_AFTER_SECONDS
            )
        try:
            opened = self._find_and_open(location)
        except REFUSALS:
            raise
        except p11.PKCS11Error:
            self._retry_at[location] = monotonic() + RETRY_AFTER_SECONDS
            raise
        self._tokens[location] = opened
        return opened

    def _find_and_open(self, location: TokenLocation) -> OpenToken:
        self._initialise()
        try:
            return self._log_in(location, self._find_token(location))
        except REFUSALS:
            raise
        except p11.PKCS11Error:
            # Some modules look for tokens only while they initialise. That ends all sessions, and
            # their handles may be reused.
            self._tokens.clear()
            self._library.reinitialize()
            return self._log_in(location, self._find_token(location))

    def _initialise(self) -> None:
        if self._library is None:
            self._library = pkcs11.lib(str(self._path))
        if self._inherited:
            # A module that noticed the fork refuses this; any other needs it.
            with suppress(p11.PKCS11Error):
                self._library.finalize()
            self._library.initialize()
            self._inherited = False

    def _find_token(self, location: TokenLocation) -> Token:
        found: list[Token] = [
            token
            for token in self._library.get_tokens(token_label=location.token)
            if location.serial in {None, token.serial.decode(errors="replace")}
            and location.manufacturer in {None, token.manufacturer_id}
            and location.model in {None, token.model}
        ]
        if not found:
            raise p11.NoSuchToken
        if len(found) > 1:
            raise p11.MultipleTokensReturned
        return found[0]

    def _log_in(self, location: TokenLocation, token: Token) -> OpenToken:
        pin = location.read_pin()
        # Tokens lock themselves after a few wrong PINs: never try one twice.
        digest = hmac.digest(_REMEMBERING, pin.encode(), "sha256")
        if hmac.compare_digest(self._refused_pins.get(location, b""), digest):
            raise p11.PinIncorrect
        try:
            session = _open_session(token, pin)
        except (p11.PinIncorrect, p11.PinInvalid, p11.PinLenRange):
            self._refused_pins[location] = digest
            raise
        return OpenToken(token, session)

    def reset_after_fork(self) -> None:
        """Drop the parent's state in a forked child."""
        # Another thread may have held the lock at the fork.
        self._lock = Lock()
        self._tokens = {}
        self._inherited = self._library is not None


def get_module(path: Path) -> Module:
    """Return this process's module at ``path``; its first use loads it."""
    # Resolve links: a module can be initialised only once in a process.
    real = path.resolve()
    with _modules_lock:
        return _modules.setdefault(real, Module(real))


def _lock(descriptor: int, path: Path) -> None:
    give_up_at = monotonic() + ALONE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() >= give_up_at:
                raise BackendUnavailable(
                    f"other processes keep using {path}", RETRY_AFTER_SECONDS
                ) from None
            sleep(PAUSE_SECONDS)
        else:
            return


def _open_session(token: Token, pin: str) -> Session:
    try:
        return token.open(rw=True, user_pin=pin)
    except p11.TokenWriteProtected:
        return token.open(user_pin=pin)
    except p11.UserAlreadyLoggedIn:
        # Another configured location is the same token.
        return token.open(rw=True)


def _name(error: p11.PKCS11Error) -> str:
    text = str(error)
    return f"{type(error).__name__} ({text})" if text else type(error).__name__


_REMEMBERING = secrets.token_bytes(32)
_modules: dict[Path, Module] = {}
_modules_lock = Lock()


def _reset_after_fork() -> None:
    global _modules_lock  # noqa: PLW0603 - likewise for the lock of this dictionary
    _modules_lock = Lock()
    for module in _modules.values():
        module.reset_after_fork()


on_fork(_reset_after_fork)
