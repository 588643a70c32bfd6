"""Requests to a Vault over kept connections, with fail-over between its addresses.

Redirects are not followed: a token goes to a configured address or nowhere.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from http.client import HTTPException, RemoteDisconnected
from math import ceil
from random import SystemRandom
from ssl import SSLContext
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import quote

from keys.backends.vault.breaker import CircuitBreaker
from keys.backends.vault.connection import (
    Connection,
    ConnectionPool,
    HttpReply,
    TimeLimits,
    make_tls_context,
    split_address,
)
from keys.backends.vault.settings import VaultAccess
from keys.errors import BackendDenied, BackendUnavailable, KeysError, TokenRefusedError
from keys.events import BackendAnswered, BackendFailed, Notify
from keys.jose.compact import parse_json_object
from keys.private_files import open_regular

logger = logging.getLogger(__name__)
#: The system's: forked processes would share the state of any other.
_random = SystemRandom()

#: One request is sent so often at most: of three nodes, one may be dead and another just becoming
#: the leader, when it does not answer.
ATTEMPTS = 3
#: When trying again makes sense if nothing better is known.
RETRY_AFTER_SECONDS = 1
SHORTEST_BACK_OFF_SECONDS = 0.05
LONGEST_BACK_OFF_SECONDS = 0.2
#: A node that lags behind the others is asked again after these pauses, each longer than the last.
FIRST_LAG_SECONDS = 0.02
LONGEST_LAG_SECONDS = 0.1
#: The other side gave up an idle connection, perhaps before it saw the request.
GIVEN_UP = (RemoteDisconnected, ConnectionResetError, BrokenPipeError)

SERVER_ERROR_STATUS = 500
#: The node did not see a login or a write at another one yet: it did nothing, and soon will.
LAGGING_STATUS = 412
THROTTLED_STATUS = 429
#: A node that is not initialised or is sealed has done nothing. With another status from 500 on, a
#: proxy may answer in the place of a node that has done what was asked.
NOTHING_DONE_STATUSES = frozenset({501, 503})
REDIRECTS = range(300, 400)
NO_CONTENT_STATUS = 204
#: Each answer of a Vault has one of these members, also an error; JSON of others has not. The last
#: one is that of ``sys/leader``.
MEMBERS = frozenset({"auth", "data", "errors", "ha_enabled"})
_MEANINGS = {
    412: "has not caught up with the others",
    472: "is a standby for disasters",
    473: "is a standby",
    501: "is not initialised",
    502: "is not reached by the proxy in front of it",
    503: "is sealed or not ready",
    504: "does not answer the proxy in front of it",
}


@dataclass(slots=True)
class VaultRequest:
    """A request to a Vault.

    Attributes:
        method: the HTTP method.
        path: the path after ``/v1/``, not encoded, with its query.
        body: the content of the JSON body; None: no body.
        repeatable: it may be sent twice; otherwise it is sent again only if the address
            surely did nothing.
        avoid: the address to try last; empty: none.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    repeatable: bool = True
    avoid: str = ""


class VaultReply(NamedTuple):
    """The answer of a Vault, and the address that gave it."""

    status: int
    body: Mapping[str, Any]
    address: str


class _Failure(NamedTuple):
    """The reason why an address gave no answer, and whether it may have executed the request."""

    problem: str
    may_be_done: bool


class _Effort:
    """Attempts that one request has taken so far."""

    attempts = 0
    has_backed_off = False


class ExchangeError(Exception):
    """There was no complete answer.

    Args:
        message: the reason.
        sent: True if the peer may have received the request.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class VaultHttp:
    """The addresses of one Vault; safe for threads. After a fork, call ``reset_after_fork``.

    Args:
        access: the addresses and time-outs.
        notify: receives addresses that fail or answer again.

    Raises:
        KeysError: an address or a TLS file cannot be used.
    """

    def __init__(self, access: VaultAccess, notify: Notify) -> None:
        if not access.addresses:
            raise KeysError("a Vault needs an address")
        self._access = access
        self._notify = notify
        self._tls = make_tls_context(access)
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Discard the connections, which the parent still uses."""
        access = self._access
        self._nodes = [_Node(url, self._tls, access) for url in access.addresses]
        self._preferred = self._nodes[0]

    def load_client_certificate(self) -> None:
        """Read the files of the client certificate again, for new connections.

        Raises:
            BackendDenied: they cannot be read, or do not match.
        """
        login = self._access.login
        try:
            for path in filter(None, (login.certificate_file, login.private_key_file)):
                open_regular(path).close()
            self._tls.load_cert_chain(login.certificate_file, login.private_key_file or None)
        except OSError as error:
            raise BackendDenied(f"the client certificate cannot be used: {error}") from error
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        for node in self._nodes:
            node.close()

    @property
    def address(self) -> str:
        """The address that is tried first at present."""
        return self._preferred.url

    def prefer(self, address: str) -> None:
        """Try ``address`` first, if it is configured."""
        for node in self._nodes:
            if node.url.rstrip("/") == address.rstrip("/"):
                self._preferred = node

    def send(
        self, request: VaultRequest, token: str = "", deadline: float | None = None
    ) -> VaultReply:
        """Send a request, to further addresses after failures.

        Args:
            request: the request.
            token: the Vault token to send; empty: none.
            deadline: the monotonic time at which all attempts end; None: after the total time-out.

        Returns:
            The answer of a Vault that serves, of any status except 429.

        Raises:
            BackendUnavailable: no address answered.
        """
        if deadline is None:
            deadline = monotonic() + self._access.total_timeout_seconds
        nodes = self._nodes if len(self._nodes) == 1 else self._in_order(request.avoid)
        effort, problems = _Effort(), list[str]()
        reply: VaultReply | None = None
        for node in nodes:
            if effort.attempts >= ATTEMPTS or monotonic() >= deadline:
                break
            if node.breaker.failures and not node.breaker.may_try():
                continue
            outcome = self._ask(node, request, token, deadline, effort)
            if isinstance(outcome, VaultReply):
                reply = outcome
                # A node without a leader fails at everything; another may do better.
                if reply.status != SERVER_ERROR_STATUS or not request.repeatable:
                    break
            else:
                problems.append(outcome.problem)
                if outcome.may_be_done and not request.repeatable:
                    break
        if reply is None:
            problem = "; ".join(problems)
            raise BackendUnavailable(
                problem or "every address failed lately and is left alone for a while",
                self._retry_after(),
            )
        return reply

    def _in_order(self, avoid: str) -> Sequence["_Node"]:
        preferred = self._preferred
        ordered = [preferred, *(node for node in self._nodes if node is not preferred)]
        return sorted(ordered, key=lambda node: node.url == avoid) if avoid else ordered

    def _ask(
        self, node: "_Node", request: VaultRequest, token: str, deadline: float, effort: _Effort
    ) -> VaultReply | _Failure:
        """Send a request to one address; repeat it once after 429, and for a time after 412."""
        effort.attempts += 1
        try:
            answer = node.exchange(request, token, deadline)
            if answer.status == LAGGING_STATUS:
                answer = self._catch_up(node, request, token, deadline, answer)
            elif answer.status == THROTTLED_STATUS:
                answer = _back_off(node, request, token, deadline, effort) or answer
        except ExchangeError as error:
            self._note_failure(node, str(error))
            return _Failure(f"{node.url}: {error}", may_be_done=error.sent)
        return self._read(node, request, answer)

    def _catch_up(
        self, node: "_Node", request: VaultRequest, token: str, deadline: float, answer: HttpReply
    ) -> HttpReply:
        """Repeat a request to a node that lags behind; half of the time is left to the others."""
        left = deadline - monotonic()
        until = monotonic() + (left if len(self._nodes) == 1 else left / 2)
        pause = FIRST_LAG_SECONDS
        while answer.status == LAGGING_STATUS and monotonic() + pause < until:
            time.sleep(pause)
            pause = min(LONGEST_LAG_SECONDS, 2 * pause)
            try:
                answer = node.exchange(request, token, deadline)
            except ExchangeError as error:
                # The last attempt ends at the deadline: without an answer, its reason is the lag.
                meaning = f"{_MEANINGS[LAGGING_STATUS]} ({error})"
                raise ExchangeError(meaning, sent=error.sent) from error
        return answer

    def _read(
        self, node: "_Node", request: VaultRequest, answer: HttpReply
    ) -> VaultReply | _Failure:
        """Return an answer, or the failure of a Vault that does not serve; note the outcome."""
        status = answer.status
        if status == THROTTLED_STATUS:
            node.breaker.succeeded()
            return _Failure(f"{node.url}: too many requests", may_be_done=False)
        meaning = "sends callers elsewhere" if status in REDIRECTS else _MEANINGS.get(status)
        body = None if meaning else _parse(answer, request)
        if body is None:
            meaning = meaning or f"does not answer as a Vault does (status {status})"
            self._note_failure(node, meaning)
            may_be_done = status >= SERVER_ERROR_STATUS and status not in NOTHING_DONE_STATUSES
            return _Failure(f"{node.url} {meaning}", may_be_done)
        if node.breaker.succeeded() or not node.has_answered:
            node.has_answered = True
            logger.info("the Vault at %s answers", node.url)
            self._notify(BackendAnswered(node.url))
        if status != SERVER_ERROR_STATUS:
            self._preferred = node
        return VaultReply(status, body, node.url)

    def _note_failure(self, node: "_Node", reason: str) -> None:
        if node.breaker.failed():
            logger.warning("the Vault at %s fails: %s", node.url, reason)
            self._notify(BackendFailed(node.url, reason))

    def _retry_after(self) -> int:
        waits = [node.breaker.seconds_to_wait() for node in self._nodes]
        return max(RETRY_AFTER_SECONDS, ceil(min(waits)))


class _Node:
    """One address with its breaker and its connections; safe for threads, not for fork."""

    def __init__(self, url: str, tls: SSLContext | None, access: VaultAccess) -> None:
        self.url = url
        self.breaker = CircuitBreaker()
        self.has_answered = False
        parts = split_address(url)
        limits = TimeLimits(access.connect_timeout_seconds, access.read_timeout_seconds)
        self._connections = ConnectionPool(parts, tls, limits)
        self._prefix = parts.path.rstrip("/")
        self._headers = [f"Host: {parts.netloc}", "X-Vault-Request: true"]
        self._headers.append("Accept: application/json")
        if access.namespace:
            self._headers.append(f"X-Vault-Namespace: {access.namespace}")

    def exchange(self, request: VaultRequest, token: str, deadline: float) -> HttpReply:
        """Send one request and return its answer; ExchangeError if none came in time."""
        path = self._prefix + encode_path(request.path)
        lines = [f"{request.method} {path} HTTP/1.1", *self._headers]
        if token:
            lines.append(f"X-Vault-Token: {token}")
        body = b"" if request.body is None else json.dumps(request.body).encode()
        connection = self._connections.take_idle()
        while True:
            is_new = connection is None
            connection = connection or self._connect(deadline)
            try:
                reply, keep = connection.exchange(lines, body, deadline)
            except (OSError, HTTPException, ValueError) as error:
                connection.close()
                if is_new or not (request.repeatable and isinstance(error, GIVEN_UP)):
                    raise ExchangeError(_describe(error), sent=True) from error
                connection = None
            else:
                self._connections.release(connection, keep=keep)
                return reply

    def close(self) -> None:
        """Close the idle connections."""
        self._connections.close()

    def _connect(self, deadline: float) -> Connection:
        try:
            return self._connections.connect(deadline)
        except (OSError, ValueError) as error:
            raise ExchangeError(_describe(error), sent=False) from error


def _back_off(
    node: _Node, request: VaultRequest, token: str, deadline: float, effort: _Effort
) -> HttpReply | None:
    """Repeat a throttled request once, after a pause; None if there is no time left."""
    pause = _random.uniform(SHORTEST_BACK_OFF_SECONDS, LONGEST_BACK_OFF_SECONDS)
    if effort.has_backed_off or monotonic() + pause >= deadline:
        return None
    effort.has_backed_off = True
    effort.attempts += 1
    time.sleep(pause)
    return node.exchange(request, token, deadline)


@lru_cache(maxsize=256)
def encode_path(path: str) -> str:
    """Return a path with ``/v1/`` before it, encoded, with single slashes; a query stays."""
    path, mark, query = path.partition("?")
    whole = "/".join(part for part in path.split("/") if part)
    return f"/v1/{quote(whole, safe='/')}{mark}{query}"


def _parse(answer: HttpReply, request: VaultRequest) -> Mapping[str, Any] | None:
    """Return the body of a Vault's answer; None if it is the answer of something else.

    A proxy or another program at the address may answer with any status, and without a body. Such
    an answer must not be taken for a Vault that refuses, or that holds no such key.
    """
    if not answer.body:
        # Only some writes are answered without content; what may be repeated reads or signs.
        is_done = answer.status == NO_CONTENT_STATUS and not request.repeatable
        return {} if is_done else None
    if not answer.is_json:
        return None
    try:
        body = parse_json_object(answer.body)
    except TokenRefusedError:
        return None
    return body if body.keys() & MEMBERS else None


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
