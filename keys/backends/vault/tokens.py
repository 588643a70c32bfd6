"""The token of one process, which is renewed, and replaced when it is invalid."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from random import SystemRandom
from threading import Event, Lock, Thread
from time import monotonic
from weakref import ref

from keys.backends.vault.auth import Login, VaultToken, look_up, renew
from keys.backends.vault.http import VaultHttp
from keys.errors import BackendDenied, BackendError, BackendUnavailable
from keys.events import Notify, VaultTokenHeld

logger = logging.getLogger(__name__)
#: The system's: forked processes would share the state of any other.
_random = SystemRandom()

#: A token is renewed when this part of its lease is over: half of it at the latest.
RENEWAL_SHARES = (0.4, 0.5)
#: A renewed lease shorter than this part of the first: the token's longest life is near.
SHORTEST_LEASE_SHARE = 0.5
#: Within this time after a look-up, a denial means a narrow policy, not a dead token.
CONFIRMED_SECONDS = 1.0
#: A token that may not look itself up seems dead: that must not end in a login for each request.
REPLACEMENT_INTERVAL_SECONDS = 10.0
#: A request that was tried again has used a token more often than is counted here.
UNCOUNTED_USES = 4
FIRST_LOGIN_PAUSE_SECONDS = 1.0
LONGEST_LOGIN_PAUSE_SECONDS = 30.0
RENEWAL_RETRY_SECONDS = 2.0
SHORTEST_SLEEP_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class _Held:
    token: VaultToken
    full_lease_seconds: float
    renew_at: float
    ends_at: float
    confirmed_at: float


class TokenKeeper:
    """The token of one process for one Vault; safe for threads.

    A daemon thread renews it at half of its lease. After a fork, call ``reset_after_fork``.

    Args:
        login: the login method.
        http: the Vault.
        name: the Vault's name, for the log and the events.
        notify: receives the token's remaining lifetime.
        total_seconds: the time-out of a login or a renewal in the background.
    """

    def __init__(
        self, login: Login, http: VaultHttp, name: str, notify: Notify, total_seconds: float
    ) -> None:
        self._login = login
        self._http = http
        self._name = name
        self._notify = notify
        self._total_seconds = total_seconds
        self._held: _Held | None = None
        self._pause_seconds = 0.0
        self._paused_until = 0.0
        self._denial = ""
        self._replace_after = 0.0
        self._reported_dead: _Held | None = None
        self._uses_left = 0
        self._is_limit_reported = False
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Keep the token, with locks and a thread of this process.

        A token of a few uses stays the parent's: two processes cannot count them.
        """
        if self._held is not None and self._held.token.uses:
            self._held = None
        self._lock = Lock()
        self._counting = Lock()
        self._wake = Event()
        self._renewer: Thread | None = None
        self._closed = False

    @property
    def uses(self) -> int:
        """Number of requests that the present token may make; 0: any number, or none is held."""
        held = self._held
        return held.token.uses if held is not None else 0

    def get(self, deadline: float) -> str:
        """Return a valid token for one request; log in if there is none.

        Args:
            deadline: the monotonic time at which a login must end.

        Raises:
            BackendDenied: the login was refused now, or shortly before.
            BackendUnavailable: the Vault cannot be reached.
        """
        held = self._held
        if held is None or held.token.uses or monotonic() >= held.ends_at:
            held = self._take_or_log_in(deadline)
        if self._renewer is None:
            self._start_renewing(deadline)
        return held.token.value

    def _take_or_log_in(self, deadline: float) -> _Held:
        held = self._held
        if held is not None and self._take_use(held):
            return held
        with self._one_at_a_time(deadline):
            held = self._held
            if held is None or not self._take_use(held):
                held = self._log_in_for_one(deadline)
            return held

    def _take_use(self, held: _Held) -> bool:
        """Count one request with the token; return False if it has ended or is used up."""
        if monotonic() >= held.ends_at:
            return False
        if not held.token.uses:
            return True
        with self._counting:
            if self._held is not held or self._uses_left < 1:
                return False
            self._uses_left -= 1
            return True

    def replace_dead(self, refused: str, deadline: float) -> str | None:
        """Return another token instead of ``refused``, or None if that one is valid.

        Of several refused callers, one checks the token and logs in if necessary.

        Raises:
            BackendDenied: the token is invalid, and too soon after a login for another one.
        """
        with self._one_at_a_time(deadline):
            held, now = self._held, monotonic()
            if held is None or (held.token.value != refused and not self._take_use(held)):
                return self._log_in_for_one(deadline).token.value
            if held.token.value != refused:
                return held.token.value
            if now - held.confirmed_at < CONFIRMED_SECONDS:
                return None
            self._take_use(held)
            if self._is_alive(refused, deadline):
                self._held = replace(held, confirmed_at=now)
                return None
            if self._may_be_used_up(held):
                value = self._log_in_for_one(deadline).token.value
                return value if value != refused else None
            if now < self._replace_after:
                raise BackendDenied(
                    f"the token for the Vault {self._name!r} is refused, and was replaced a moment "
                    "ago; it is not replaced again yet"
                )
            # Not for each request that comes until there is another token.
            if held is not self._reported_dead:
                self._reported_dead = held
                logger.warning("the token for the Vault %r is dead; logging in again", self._name)
            value = self._log_in_for_one(deadline).token.value
            # Not after a login that failed: that has a pause of its own, and its own reason.
            self._replace_after = now + REPLACEMENT_INTERVAL_SECONDS
            return value if value != refused else None

    def _is_alive(self, token: str, deadline: float) -> bool:
        """Return whether ``token`` is valid; False also if it may not look itself up."""
        try:
            look_up(token, self._http, deadline)
        except BackendDenied:
            return False
        return True

    def _may_be_used_up(self, held: _Held) -> bool:
        return bool(held.token.uses) and self._uses_left <= UNCOUNTED_USES

    def _log_in_for_one(self, deadline: float) -> _Held:
        held = self._log_in(deadline)
        self._take_use(held)
        return held

    def close(self) -> str | None:
        """Stop renewing; return the token if this process must revoke it."""
        self._closed = True
        self._wake.set()
        held, self._held = self._held, None
        return held.token.value if held and self._login.gives_new_tokens else None

    # ------------------------------------------------------------------------------ logging in

    @contextmanager
    def _one_at_a_time(self, deadline: float) -> Iterator[None]:
        lock = self._lock
        if not lock.acquire(timeout=max(0.0, deadline - monotonic())):
            raise BackendUnavailable(f"the login to the Vault {self._name!r} takes too long", 1)
        try:
            yield
        finally:
            lock.release()

    def _log_in(self, deadline: float) -> _Held:
        now = monotonic()
        if now < self._paused_until:
            raise BackendDenied(f"{self._denial} (a moment ago; not asked again yet)")
        try:
            token = self._login.log_in(self._http, deadline)
        except BackendDenied as error:
            longer = max(FIRST_LOGIN_PAUSE_SECONDS, 2 * self._pause_seconds)
            self._pause_seconds = min(LONGEST_LOGIN_PAUSE_SECONDS, longer)
            self._paused_until, self._denial = now + self._pause_seconds, str(error)
            logger.error("no token for the Vault %r: %s", self._name, error)  # noqa: TRY400 - the message has the cause
            raise
        self._pause_seconds = 0.0
        self._report_login(token)
        return self._hold(token, token.lease_seconds)

    def _report_login(self, token: VaultToken) -> None:
        if not token.uses:
            logger.info("logged in to the Vault %r", self._name)
        elif not self._is_limit_reported:
            self._is_limit_reported = True
            logger.warning(
                "each token for the Vault %r is good for %d requests, so there is a login for as "
                "many: set token_num_uses=0 for its role",
                self._name,
                token.uses,
            )

    def _hold(self, token: VaultToken, full_lease_seconds: float) -> _Held:
        now, lease = monotonic(), token.lease_seconds
        share = _random.uniform(*RENEWAL_SHARES)
        renew_at, ends_at = (now + share * lease, now + lease) if lease > 0 else (inf, inf)
        with self._counting:
            self._uses_left = token.uses
            self._held = held = _Held(token, full_lease_seconds, renew_at, ends_at, -inf)
        if lease > 0:
            self._notify(VaultTokenHeld(self._name, lease, full_lease_seconds))
        self._wake.set()
        return held

    # -------------------------------------------------------------------------------- renewing

    def _start_renewing(self, deadline: float) -> None:
        with self._one_at_a_time(deadline):
            if self._renewer is None and not self._closed:
                name = f"vault-renewal-{self._name}"
                arguments = (ref(self), self._wake)
                self._renewer = Thread(target=_renew, args=arguments, name=name, daemon=True)
                self._renewer.start()

    def renew_if_due(self) -> float:
        """Renew the token if it is due; return the seconds until the next call."""
        held = self._held
        if held is None or held.renew_at == inf:
            return inf
        wait = held.renew_at - monotonic()
        if wait > 0:
            return wait
        try:
            with self._one_at_a_time(self._deadline()):
                if self._held is held and not self._closed:
                    self._renew(held)
        except BackendDenied:
            return max(RENEWAL_RETRY_SECONDS, self._paused_until - monotonic())
        except BackendError as error:
            left = held.ends_at - monotonic()
            logger.warning(
                "the token for %r is not renewed (%.0f s left): %s", self._name, left, error
            )
            self._notify(VaultTokenHeld(self._name, max(0.0, left), held.full_lease_seconds))
            return RENEWAL_RETRY_SECONDS
        return SHORTEST_SLEEP_SECONDS

    def _renew(self, held: _Held) -> None:
        # A token of a few uses is replaced instead: its renewals would use it up.
        if held.token.renewable and not held.token.uses:
            try:
                token = renew(held.token, self._http, self._deadline())
            except BackendDenied as error:
                logger.warning("%s; logging in again", error)
            else:
                lasting = SHORTEST_LEASE_SHARE * held.full_lease_seconds
                if token.lease_seconds >= lasting or not self._login.gives_new_tokens:
                    self._hold(token, held.full_lease_seconds)
                    return
        self._log_in(self._deadline())

    def _deadline(self) -> float:
        return monotonic() + self._total_seconds


def _renew(keeper_of: "ref[TokenKeeper]", wake: Event) -> None:
    """Renew the token until its keeper is closed; runs in a thread."""
    while (keeper := keeper_of()) is not None and not keeper._closed:  # noqa: SLF001 - the same module
        wake.clear()
        try:
            wait = keeper.renew_if_due()
        except Exception:
            logger.exception("the renewal of a token failed; trying again")
            wait = LONGEST_LOGIN_PAUSE_SECONDS
        del keeper
        wake.wait(None if wait == inf else max(SHORTEST_SLEEP_SECONDS, wait))
