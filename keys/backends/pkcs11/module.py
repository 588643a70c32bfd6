"""One session for each token, on which one thread at a time works; renewed when it is lost.

PKCS#11 modules are initialised here without asking them for locks, so every call into a module
holds that module's own lock, whichever token it is for. A session belongs to its process: after a
fork the child initialises the module again (PKCS#11, 5.4 of 3.1: C_Initialize) and logs in anew.
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

#: After a failed opening, the next one is not tried sooner: modules of devices that are away block.
RETRY_AFTER_SECONDS = 1
#: So long a thread waits for the others.
LOCK_SECONDS = 5.0
#: So long a maker waits for other makers, one of which may be generating an RSA key.
ALONE_SECONDS = 60.0
PAUSE_SECONDS = 0.01
#: The token understood and refused; a new session would not change its mind.
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
    """A session with its user logged in, and what was found in it.

    Attributes:
        session: For the holder of the module's lock only.
        mechanisms: What the token offers, with the largest key size of each.
        found: For the users of the session: what they keep as long as it lives.
    """

    def __init__(self, token: Token, session: Session) -> None:
        self.session = session
        self.mechanisms: dict[int, int] = {
            mechanism: token.slot.get_mechanism_info(mechanism).max_key_length or 0
            for mechanism in token.slot.get_mechanisms()
        }
        self.found: dict[str, Any] = {}


class Module:
    """A PKCS#11 module in this process; ``get_module`` returns the only one for a path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._library: Any = None
        self._tokens: dict[TokenLocation, OpenToken] = {}
        self._inherited = False
        self._retry_at: dict[TokenLocation, float] = {}
        self._refused_pins: dict[TokenLocation, bytes] = {}
        self._lock = Lock()

    def run(self, location: TokenLocation, work: Callable[[OpenToken], T]) -> T:
        """Return ``work(token)``; called once more with a new session if that one was lost.

        Raises:
            BackendUnavailable: The token is away, or others kept the module busy.
            BackendDenied: The token refused, the PIN first of all.
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
        """Keep the other processes of this machine, and threads, that ask for this away meanwhile.

        For whoever changes a token: SoftHSM shows others half of a change. What is locked is the
        module's own file, the one thing that all of them can read.

        Raises:
            BackendUnavailable: Others did not let go in time.
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
            # Not by closing alone: a child that was forked meanwhile holds the file open, too.
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
            # Some modules look for their tokens only while they initialise. The handles of all
            # sessions end with that, and would soon mean other sessions.
            self._tokens.clear()
            self._library.reinitialize()
            return self._log_in(location, self._find_token(location))

    def _initialise(self) -> None:
        if self._library is None:
            self._library = pkcs11.lib(str(self._path))
        if self._inherited:
            # A module that has noticed the fork refuses this, one that has not needs it.
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
        # Tokens lock themselves after a few wrong PINs: one is never tried twice.
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
        """Leave to the parent process what is the parent's: called in the child of a fork."""
        # A lock that another thread held at the fork would stay locked for ever.
        self._lock = Lock()
        self._tokens = {}
        self._inherited = self._library is not None


def get_module(path: Path) -> Module:
    """Return this process's module at ``path``; it is loaded when first used."""
    # By whatever links it is named: a module can be initialised once in a process.
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
                    f"others keep changing what {path} holds", RETRY_AFTER_SECONDS
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
        # Another location of ours names the same token.
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
