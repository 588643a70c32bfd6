"""One Vault as one process talks to it: a token, several addresses, bounded time.

Connections are of one process: two processes on one connection get each other's answers.
"""

import atexit
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from keys.backends.vault.auth import make_login
from keys.backends.vault.client import encode_path, make_client
from keys.backends.vault.errors import DENIED_STATUSES
from keys.backends.vault.settings import VaultAccess
from keys.backends.vault.tokens import TokenKeeper
from keys.backends.vault.transport import VaultReply, VaultRequest, VaultTransport
from keys.errors import BackendDenied, BackendError, KeysError
from keys.forks import on_fork
from keys.observer import Observer, SilentObserver

logger = logging.getLogger(__name__)

DENIED_ALARM = "vault.denied"
#: A policy that is too narrow is too narrow for every request: one alarm a minute for each path.
ALARM_INTERVAL_SECONDS = 60.0


class VaultSession:
    """A Vault as a logged-in caller; safe for threads and for fork.

    Args:
        access: Where it is and as whom to log in.
        name: What the settings call it.
        observer: Hears of outages, tokens and alarms.

    Attributes:
        name: As given.
        changing: Held while a key is made, so that this process makes one at a time.
        total_timeout_seconds: For one call, with its retry.
        has_several_addresses: Whether another can be asked.
        client: An hvac client whose every request goes through ``send``. Its own errors need
            ``vault_errors.vault_errors`` around them.

    Raises:
        KeysError: An address, a file or the login is unusable as it is written.
    """

    def __init__(
        self, access: VaultAccess, *, name: str = "main", observer: Observer | None = None
    ) -> None:
        self.name = name
        self.total_timeout_seconds = access.total_timeout_seconds
        self.has_several_addresses = len(access.addresses) > 1
        self._observer = observer or SilentObserver()
        self._transport = VaultTransport(access, self._observer)
        self._vault = _UnguardedVault(self._transport)
        login = make_login(access, self._observer)
        seconds_left = self._transport.seconds_left
        self._tokens = TokenKeeper(login, self._vault, name, self._observer, seconds_left)
        self.changing = Lock()
        self._alarms: dict[str, float] = {}
        self._process_id = os.getpid()
        self.client = make_client(self.send)
        _all_sessions.add(self)
        on_fork(self.after_fork)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Have all that this thread sends inside the block end within ``seconds``."""
        with self._transport.one_call(seconds):
            yield

    @property
    def address(self) -> str:
        """The address that is asked first at present."""
        return self._transport.address

    def call(  # noqa: PLR0913 - the parts of a request
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        repeatable: bool = False,
        avoid: str = "",
        is_probe: bool = False,
    ) -> VaultReply:
        """Call ``/v1/{path}``; see ``send``.

        Args:
            method: The HTTP method.
            path: Without ``/v1/``.
            body: Becomes JSON.
            repeatable: Doing it twice does no harm; else it is sent again only where the first
                address surely did nothing.
            avoid: The address to ask last.
            is_probe: A denial is what the caller hopes for: it is no alarm.
        """
        content = b"" if body is None else json.dumps(body).encode()
        request = VaultRequest(
            method, encode_path(f"v1/{path}"), content, repeatable=repeatable, avoid=avoid
        )
        return self.send(request, is_probe=is_probe)

    @property
    def token_uses(self) -> int:
        """How many requests a token of ours may make; 0: any number, or not logged in yet."""
        return self._tokens.uses

    def send(self, request: VaultRequest, *, is_probe: bool = False) -> VaultReply:
        """Send ``request`` with this process's token; all of it takes the total time-out at most.

        Args:
            request: What to ask.
            is_probe: See ``call``.

        Returns:
            The reply; its status may still be an error of the request's own, or 500.

        Raises:
            BackendUnavailable: No address serves at the moment.
            BackendDenied: The login was refused, or the token is alive and may not do this.
        """
        with self._transport.one_call():
            token = self._tokens.get()
            reply = self._transport.send(request, token)
            if reply.status in DENIED_STATUSES:
                other = self._tokens.replace_dead(token)
                if other is not None:
                    reply = self._transport.send(request, other)
            if reply.status in DENIED_STATUSES:
                if not is_probe:
                    self._sound_alarm(request)
                raise BackendDenied(
                    f"the Vault {self.name!r} denies {request.method} {request.path}: "
                    "the token is alive, its policy does not permit this"
                )
            return reply

    def prefer_leader(self) -> None:
        """Ask the leader first from now on, if its address is one of ours: standbys lag behind."""
        if not self.has_several_addresses:
            return
        told = self._transport.send(VaultRequest("GET", "/v1/sys/leader")).body
        if not told.get("is_self") and isinstance(told.get("leader_address"), str):
            self._transport.prefer(told["leader_address"])

    def close(self) -> None:
        """End this process's own token, if the Vault can be told, and all connections."""
        own = self._tokens.close()
        if own is not None and self._process_id == os.getpid():
            request = VaultRequest("POST", "/v1/auth/token/revoke-self", repeatable=False)
            try:
                self._transport.send(request, own)
            except BackendError as error:
                logger.info("the token for the Vault %r was left to expire: %s", self.name, error)
        self._transport.close()

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent."""
        self.changing = Lock()
        self._transport.forget_connections()
        self._tokens.after_fork()

    def _sound_alarm(self, request: VaultRequest) -> None:
        now, subject = monotonic(), f"{request.method} {request.path}"
        if now - self._alarms.get(subject, -ALARM_INTERVAL_SECONDS) < ALARM_INTERVAL_SECONDS:
            return
        self._alarms[subject] = now
        detail = f"the policy of our token in the Vault {self.name!r} does not permit it"
        logger.error("the Vault %r denies %s", self.name, subject)
        self._observer.alarm(DENIED_ALARM, subject, detail)


class _UnguardedVault:
    """hvac clients with a given token, for logging in: nothing is retried as somebody else."""

    def __init__(self, transport: VaultTransport) -> None:
        self._transport = transport

    def client(self, token: str = "") -> Any:  # noqa: ANN401 - the library has no types
        """Return an hvac client with that token, or with none."""
        return make_client(lambda request: self._transport.send(request, token))

    def load_client_certificate(self) -> None:
        """Show the TLS client certificate as its files are now."""
        self._transport.load_client_certificate()


_all_sessions: WeakSet[VaultSession] = WeakSet()
_shared: WeakValueDictionary[tuple[str, VaultAccess, int], VaultSession] = WeakValueDictionary()
_sharing = Lock()


def share_session(vaults: Mapping[str, VaultAccess], name: str, observer: Observer) -> VaultSession:
    """Return this process's session with the Vault called ``name``: one for all its backends.

    Raises:
        KeysError: There is no Vault of that name, or it is unusable as it is written.
    """
    access = vaults.get(name)
    if access is None:
        known = ", ".join(sorted(vaults)) or "none"
        raise KeysError(f"no Vault is called {name!r} in the settings (there are: {known})")
    key = (name, access, id(observer))
    with _sharing:
        session = _shared.get(key)
        if session is None:
            _shared[key] = session = VaultSession(access, name=name, observer=observer)
        return session


@atexit.register
def _close_all() -> None:
    # A command that a clock starts every minute would leave a live token each time.
    for session in list(_all_sessions):
        session.close()


def _renew_lock() -> None:
    global _sharing  # noqa: PLW0603 - another thread may have held it at the fork
    _sharing = Lock()


on_fork(_renew_lock)
