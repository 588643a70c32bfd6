"""Requests to a Vault that has several addresses: which one is asked, and when another is."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from random import SystemRandom
from threading import local
from time import monotonic
from typing import Any

from keys.backends.vault.breaker import CircuitBreaker
from keys.backends.vault.errors import (
    LAGGING_STATUS,
    LOST_STATUSES,
    NOT_SERVING_STATUSES,
    RETRY_AFTER_SECONDS,
    SERVER_ERROR_STATUS,
    THROTTLED_STATUS,
    describe_status,
)
from keys.backends.vault.http import (
    ExchangeError,
    HttpReply,
    HttpRequest,
    Timing,
    VaultAddress,
    make_tls_context,
    split_address,
)
from keys.backends.vault.settings import VaultAccess
from keys.errors import BackendDenied, BackendUnavailable, KeysError
from keys.observer import Observer

logger = logging.getLogger(__name__)
#: The system's: forked processes would share the state of any other.
_random = SystemRandom()

TOKEN_HEADER = "X-Vault-Token"  # noqa: S105 - a header's name
#: One request is sent so often at most: of three nodes, one may be dead and another just becoming
#: the leader, when it answers nobody.
ATTEMPTS = 3
SHORTEST_BACK_OFF_SECONDS = 0.05
LONGEST_BACK_OFF_SECONDS = 0.2
#: A node that lags behind the others is asked again after these pauses, each longer than the last.
FIRST_LAG_SECONDS = 0.02
LONGEST_LAG_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class VaultRequest:
    """What to ask a Vault.

    Attributes:
        method: The HTTP method.
        path: From ``/v1/`` on, encoded, with its query.
        body: JSON, or nothing.
        headers: Beyond those of every request.
        repeatable: Doing it twice does no harm.
        avoid: The address to ask last; empty: none.
    """

    method: str
    path: str
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    repeatable: bool = True
    avoid: str = ""


@dataclass(frozen=True, slots=True)
class VaultReply:
    """What a Vault answered, and at which address."""

    status: int
    body: Mapping[str, Any]
    address: str


class _Node:
    def __init__(self, address: VaultAddress) -> None:
        self.address = address
        self.breaker = CircuitBreaker()
        self.answered = False


class VaultTransport:
    """The addresses of one Vault; safe for threads. After a fork, call ``forget_connections``.

    Args:
        access: Where they are and how long to wait.
        observer: Hears when an address fails or answers again.
    """

    def __init__(self, access: VaultAccess, observer: Observer) -> None:
        if not access.addresses:
            raise KeysError("a Vault needs an address")
        self._access = access
        self._observer = observer
        self._headers = {"X-Vault-Request": "true", "Accept": "application/json"}
        if access.namespace:
            self._headers["X-Vault-Namespace"] = access.namespace
        self._tls = _make_tls(access)
        self._bounds = local()
        self._open()

    def _open(self) -> None:
        self._nodes = [_Node(VaultAddress(url, self._tls)) for url in self._access.addresses]
        self._preferred = self._nodes[0]

    def forget_connections(self) -> None:
        """Start anew: for a process that inherited connections which its parent goes on using."""
        self._open()

    def load_client_certificate(self) -> None:
        """Show the client certificate as its files are now on connections from now on.

        Raises:
            BackendDenied: They cannot be read, or do not belong together.
        """
        login = self._access.login
        try:
            self._tls.load_cert_chain(login.certificate_file, login.private_key_file or None)
        except OSError as error:
            raise BackendDenied(f"the client certificate cannot be used: {error}") from error
        self.close()

    def close(self) -> None:
        """Close all connections."""
        for node in self._nodes:
            node.address.close()

    @property
    def address(self) -> str:
        """The address that is asked first at present."""
        return self._preferred.address.url

    def prefer(self, address: str) -> None:
        """Ask ``address`` first from now on, if it is one of ours."""
        for node in self._nodes:
            if node.address.url.rstrip("/") == address.rstrip("/"):
                self._preferred = node

    def send(self, request: VaultRequest, token: str = "") -> VaultReply:
        """Ask, if need be again at another address, all within the total time-out.

        Args:
            request: What to ask.
            token: As whom; empty: as nobody.

        Returns:
            The answer of a Vault that serves, whatever its status, except 429.

        Raises:
            BackendUnavailable: No address gave one.
        """
        headers = {**self._headers, **request.headers}
        if token:
            headers[TOKEN_HEADER] = token
        is_alone = len(self._nodes) == 1
        call = _Call(request, self._timing(), headers, is_alone=is_alone)
        for node in self._in_order(request.avoid):
            if call.is_over():
                break
            if node.breaker.may_try():
                self._try(node, call)
        if call.reply is None:
            raise BackendUnavailable(
                call.problem or "every address failed lately and is left alone for a while",
                self._retry_after(),
            )
        return call.reply

    @contextmanager
    def one_call(self, seconds: float | None = None) -> Iterator[None]:
        """Have all that this thread sends inside the block end within ``seconds``.

        None: within the total time-out. Inside another such block, that one's end counts.
        """
        outermost = self._deadline() is None
        if outermost:
            total = self._access.total_timeout_seconds
            self._bounds.deadline = monotonic() + (total if seconds is None else seconds)
        try:
            yield
        finally:
            if outermost:
                self._bounds.deadline = None

    def seconds_left(self) -> float:
        """Return how much of the total time-out is left to this thread."""
        deadline = self._deadline()
        if deadline is None:
            return self._access.total_timeout_seconds
        return max(0.0, deadline - monotonic())

    def _deadline(self) -> float | None:
        return getattr(self._bounds, "deadline", None)

    def _timing(self) -> Timing:
        access = self._access
        deadline = monotonic() + self.seconds_left()
        return Timing(access.connect_timeout_seconds, access.read_timeout_seconds, deadline)

    def _in_order(self, avoid: str) -> Sequence[_Node]:
        preferred = self._preferred
        if len(self._nodes) == 1:
            return self._nodes
        ordered = [preferred, *(node for node in self._nodes if node is not preferred)]
        return sorted(ordered, key=lambda node: node.address.url == avoid) if avoid else ordered

    def _try(self, node: "_Node", call: "_Call") -> None:
        call.attempts += 1
        try:
            reply = call.exchange(node)
        except ExchangeError as error:
            self._failed(node, str(error))
            call.failed(f"{node.address.url}: {error}", go_on=not error.sent)
            return
        if reply.status == THROTTLED_STATUS:
            node.breaker.succeeded()
            call.failed(f"{node.address.url}: too many requests", go_on=True)
        elif reply.status in NOT_SERVING_STATUSES or reply.status in LOST_STATUSES:
            meaning = describe_status(reply.status)
            self._failed(node, meaning)
            go_on = reply.status in NOT_SERVING_STATUSES
            call.failed(f"{node.address.url} {meaning}", go_on=go_on)
        elif (body := _parse(reply)) is None:
            self._failed(node, "does not answer as a Vault does")
            call.failed(f"{node.address.url} does not answer as a Vault does", go_on=True)
        else:
            self._answered(node)
            call.reply = VaultReply(reply.status, body, node.address.url)
            if reply.status != SERVER_ERROR_STATUS:
                self._preferred = node

    def _answered(self, node: "_Node") -> None:
        if node.breaker.succeeded() or not node.answered:
            node.answered = True
            logger.info("the Vault at %s answers", node.address.url)
            self._observer.backend_up(node.address.url)

    def _failed(self, node: "_Node", reason: str) -> None:
        if node.breaker.failed():
            logger.warning("the Vault at %s fails: %s", node.address.url, reason)
            self._observer.backend_down(node.address.url, reason)

    def _retry_after(self) -> int:
        waits = [node.breaker.seconds_to_wait() for node in self._nodes]
        return max(RETRY_AFTER_SECONDS, ceil(min(waits)))


class _Call:
    """One request on its way through the addresses."""

    def __init__(
        self,
        request: VaultRequest,
        timing: Timing,
        headers: Mapping[str, str],
        *,
        is_alone: bool,
    ) -> None:
        self._request = HttpRequest(
            request.method, request.path, headers, request.body, request.repeatable
        )
        self._timing = timing
        self._lag_share = 1.0 if is_alone else 0.5
        self._go_on = True
        self._backed_off = False
        self.attempts = 0
        self.reply: VaultReply | None = None
        self.problem = ""

    def is_over(self) -> bool:
        """Tell whether no further address is to be asked."""
        if self.attempts >= ATTEMPTS or monotonic() >= self._timing.deadline:
            return True
        if self.reply is None:
            return not (self._go_on or self._request.repeatable)
        # A node without a leader fails at everything; another may do better.
        return self.reply.status != SERVER_ERROR_STATUS or not self._request.repeatable

    def failed(self, problem: str, *, go_on: bool) -> None:
        """Note why an address gave no answer, and whether it surely did nothing."""
        self.problem = f"{self.problem}; {problem}" if self.problem else problem
        self._go_on = go_on

    def exchange(self, node: _Node) -> HttpReply:
        """Ask one address; after 429, once more a little later; after 412, until it knows."""
        reply = self._exchange(node)
        if reply.status == LAGGING_STATUS:
            return self._catch_up(node, reply)
        if reply.status != THROTTLED_STATUS or self._backed_off:
            return reply
        back_off = _random.uniform(SHORTEST_BACK_OFF_SECONDS, LONGEST_BACK_OFF_SECONDS)
        if monotonic() + back_off >= self._timing.deadline:
            return reply
        self._backed_off = True
        self.attempts += 1
        time.sleep(back_off)
        return self._exchange(node)

    def _catch_up(self, node: _Node, reply: HttpReply) -> HttpReply:
        """Ask a node that lags behind again and again; half of the time is left to the others."""
        left = self._timing.deadline - monotonic()
        until = monotonic() + left * self._lag_share
        pause = FIRST_LAG_SECONDS
        while reply.status == LAGGING_STATUS and monotonic() + pause < until:
            time.sleep(pause)
            pause = min(LONGEST_LAG_SECONDS, 2 * pause)
            reply = self._exchange(node)
        return reply

    def _exchange(self, node: _Node) -> HttpReply:
        return node.address.exchange(self._request, self._timing)


def _parse(reply: HttpReply) -> Mapping[str, Any] | None:
    if not reply.body:
        return {}
    if not reply.is_json:
        return None
    try:
        body = json.loads(reply.body)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _make_tls(access: VaultAccess) -> Any:  # noqa: ANN401 - an SSLContext or None
    if not any(split_address(url).scheme == "https" for url in access.addresses):
        return None
    login = access.login
    return make_tls_context(access.ca_file, login.certificate_file, login.private_key_file)
