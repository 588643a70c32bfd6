"""The client of one Vault, which calls it with this process's token and a time-out.

Connections belong to one process; two processes must not share one.
"""

import atexit
import logging
import os
from collections.abc import Mapping
from threading import Lock
from time import monotonic
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from keys.backends.vault.auth import make_login
from keys.backends.vault.errors import DENIED_STATUSES
from keys.backends.vault.http import VaultHttp, VaultReply, VaultRequest, encode_path
from keys.backends.vault.settings import VaultAccess
from keys.backends.vault.tokens import TokenKeeper
from keys.errors import BackendDenied, BackendError, KeysError
from keys.events import Alarm, Notify, ignore
from keys.forks import on_fork

logger = logging.getLogger(__name__)

DENIED_ALARM = "vault.denied"
#: A policy that is too narrow is too narrow for every request: one alarm a minute for each path.
ALARM_INTERVAL_SECONDS = 60.0


class VaultClient:
    """The client of one Vault; safe for threads and for fork.

    Args:
        access: the addresses and the login.
        name: its name in the settings.
        notify: receives outages, tokens and alarms.

    Attributes:
        name: as given.
        changing: a lock that is held while this process makes a key.
        total_timeout_seconds: the time-out of one call with its retry.
        has_several_addresses: True if there is more than one address.

    Raises:
        KeysError: an address, a file or the login cannot be used.
    """

    def __init__(self, access: VaultAccess, *, name: str = "main", notify: Notify = ignore) -> None:
        self.name = name
        self.total_timeout_seconds = access.total_timeout_seconds
        self.has_several_addresses = len(access.addresses) > 1
        self.changing = Lock()
        self._notify = notify
        self._http = VaultHttp(access, notify)
        login, total = make_login(access, notify), access.total_timeout_seconds
        self._tokens = TokenKeeper(login, self._http, name, notify, total)
        self._alarms: dict[str, float] = {}
        self._process_id = os.getpid()
        _all_clients.add(self)
        on_fork(self.reset_after_fork)

    @property
    def address(self) -> str:
        """The address that is tried first at present."""
        return self._http.address

    @property
    def token_uses(self) -> int:
        """Number of requests that the token may make; 0: any number, or not logged in yet."""
        return self._tokens.uses

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        repeatable: bool = False,
        is_probe: bool = False,
    ) -> VaultReply:
        """Call ``/v1/{path}``; see ``send``."""
        return self.send(VaultRequest(method, path, body, repeatable), is_probe=is_probe)

    def send(
        self, request: VaultRequest, *, deadline: float | None = None, is_probe: bool = False
    ) -> VaultReply:
        """Send ``request`` with this process's token.

        Args:
            request: the request.
            deadline: the monotonic time of its end, including logins; None: after the total
                time-out.
            is_probe: a denial is expected, and raises no alarm.

        Returns:
            The reply; its status may still be an error of the request's own, or 500.

        Raises:
            BackendUnavailable: no address can be used at present.
            BackendDenied: the login was refused, or the token lacks the right.
        """
        if deadline is None:
            deadline = monotonic() + self.total_timeout_seconds
        token = self._tokens.get(deadline)
        reply = self._http.send(request, token, deadline)
        if reply.status in DENIED_STATUSES:
            other = self._tokens.replace_dead(token, deadline)
            if other is not None:
                reply = self._http.send(request, other, deadline)
        if reply.status in DENIED_STATUSES:
            subject = f"{request.method} {encode_path(request.path)}"
            if not is_probe:
                self._raise_alarm(subject)
            raise BackendDenied(
                f"the Vault {self.name!r} denies {subject}: "
                "the token is valid, but its policy does not permit this"
            )
        return reply

    def prefer_leader(self) -> None:
        """Try the leader first, if its address is configured; standbys lag behind."""
        if not self.has_several_addresses:
            return
        shown = self._http.send(VaultRequest("GET", "sys/leader")).body
        if not shown.get("is_self") and isinstance(shown.get("leader_address"), str):
            self._http.prefer(shown["leader_address"])

    def close(self) -> None:
        """Revoke this process's own token, if the Vault can be reached; close all connections."""
        own = self._tokens.close()
        if own is not None and self._process_id == os.getpid():
            request = VaultRequest("POST", "auth/token/revoke-self", repeatable=False)
            try:
                self._http.send(request, own)
            except BackendError as error:
                logger.info("the token for the Vault %r was left to expire: %s", self.name, error)
        self._http.close()

    def reset_after_fork(self) -> None:
        """Discard the connections, which belong to the parent."""
        self.changing = Lock()
        self._http.reset_after_fork()
        self._tokens.reset_after_fork()

    def _raise_alarm(self, subject: str) -> None:
        now = monotonic()
        if now - self._alarms.get(subject, -ALARM_INTERVAL_SECONDS) < ALARM_INTERVAL_SECONDS:
            return
        self._alarms[subject] = now
        detail = f"the policy of our token in the Vault {self.name!r} does not permit it"
        logger.error("the Vault %r denies %s", self.name, subject)
        self._notify(Alarm(DENIED_ALARM, subject, detail))


_all_clients: WeakSet[VaultClient] = WeakSet()
_shared: WeakValueDictionary[tuple[str, VaultAccess, int], VaultClient] = WeakValueDictionary()
_sharing = Lock()


def share_client(vaults: Mapping[str, VaultAccess], name: str, notify: Notify) -> VaultClient:
    """Return this process's client of the Vault ``name``, which all its backends share.

    Raises:
        KeysError: there is no Vault of that name, or it cannot be used.
    """
    access = vaults.get(name)
    if access is None:
        known = ", ".join(sorted(vaults)) or "none"
        raise KeysError(f"no Vault is called {name!r} in the settings (there are: {known})")
    # The receiver may hold the client: an entry must not keep it.
    key = (name, access, id(notify))
    with _sharing:
        client = _shared.get(key)
        if client is None:
            _shared[key] = client = VaultClient(access, name=name, notify=notify)
        return client


@atexit.register
def _close_all() -> None:
    # A command that a clock starts every minute would leave a live token each time.
    for client in list(_all_clients):
        client.close()


def _renew_lock() -> None:
    global _sharing  # noqa: PLW0603 - another thread may have held it at the fork
    _sharing = Lock()


on_fork(_renew_lock)
