"""Steady requests for tokens at every node, each token handed to every verifier."""

import json
import time
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from itertools import count
from threading import Event, Thread
from typing import Any, NamedTuple
from urllib.parse import urlencode

from rotation_demo.ledger import Ledger
from rotation_demo.verifiers import VerifierProcess

INTROSPECTION = "introspection"
_TIMEOUT_SECONDS = 10
_FORM = "application/x-www-form-urlencoded"


class Answer(NamedTuple):
    """What a node answered: its status and the JSON of its body."""

    status: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Node:
    """A node as its callers see it."""

    name: str
    port: int


@dataclass(frozen=True, slots=True)
class Callers:
    """Who asks: a client for tokens, a resource server about them."""

    client_id: str
    client_secret: str
    resource_server_id: str
    resource_server_secret: str
    scope: str

    def form(self) -> dict[str, str]:
        """Return the request for a token."""
        return {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "scope": self.scope,
        }

    def basic(self) -> dict[str, str]:
        """Return the resource server's header."""
        pair = f"{self.resource_server_id}:{self.resource_server_secret}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


class Caller:
    """Calls one node over one connection, kept alive; for one thread."""

    def __init__(self, node: Node, callers: Callers) -> None:
        self.node = node
        self._callers = callers
        self._connection = HTTPConnection("127.0.0.1", node.port, timeout=_TIMEOUT_SECONDS)

    def token(self) -> Answer:
        """Ask for a token."""
        return self._post("/oauth2/token", self._callers.form(), {})

    def introspect(self, token: str) -> Answer:
        """Ask about a token."""
        return self._post("/oauth2/introspect", {"token": token}, self._callers.basic())

    def jwks(self) -> Answer:
        """Ask for the JWKS."""
        return self._send("GET", "/.well-known/jwks.json", None, {})

    def _post(self, path: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        return self._send("POST", path, urlencode(form), {"Content-Type": _FORM, **headers})

    def _send(self, method: str, path: str, body: str | None, headers: Mapping[str, str]) -> Answer:
        try:
            self._connection.request(method, path, body, dict(headers))
            answer = self._connection.getresponse()
            return Answer(answer.status, json.loads(answer.read()))
        except (HTTPException, OSError):
            self._connection.close()
            raise


class Issued(NamedTuple):
    """A token with what it says of itself."""

    token: str
    kid: str
    expires_at: float


def read_token(answer: Answer) -> Issued:
    """Return the token of an answer; no signature is looked at."""
    token = answer.body["access_token"]
    header, claims = (_decode(part) for part in token.split(".")[:2])
    return Issued(token, header["kid"], float(claims["exp"]))


def _decode(segment: str) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    return decoded


class Traffic:
    """Asks every node for tokens at a steady rate until it is ended.

    Each token is introspected at once at the next node, which did not issue it.

    Args:
        nodes: All of them.
        callers: Who asks.
        verifiers: Who is handed every token.
        ledger: Where it is written down.
        tokens_per_second: At each node.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        callers: Callers,
        verifiers: Sequence[VerifierProcess],
        ledger: Ledger,
        tokens_per_second: float,
    ) -> None:
        self._callers = callers
        self._verifiers = verifiers
        self._ledger = ledger
        self._interval = 1 / tokens_per_second
        self._ended = Event()
        self._latest: dict[str, Issued] = {}
        self._numbers = count()
        # Not all at the same moment: what one node does late, another may show.
        delays = [number * self._interval / len(nodes) for number in range(len(nodes))]
        self._threads = [
            Thread(target=self._run, args=parts, name=f"asks {parts[0].name}", daemon=True)
            for parts in zip(nodes, [*nodes[1:], nodes[0]], delays, strict=True)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Ask no more; return when no request is under way."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def latest(self, kid: str) -> Issued | None:
        """Return the last token that was signed by that key."""
        return self._latest.get(kid)

    def _run(self, node: Node, other: Node, delay_seconds: float) -> None:
        issuer, introspector = Caller(node, self._callers), Caller(other, self._callers)
        due = time.monotonic() + delay_seconds
        while not self._ended.wait(max(due - time.monotonic(), 0)):
            # After a stall, the rate is kept from then on: no burst makes up for it.
            due = max(due + self._interval, time.monotonic() - self._interval)
            try:
                self._request(issuer, introspector)
            except (HTTPException, OSError, ValueError, KeyError) as error:
                self._ledger.failed(f"{node.name}: {type(error).__name__}: {error}")

    def _request(self, issuer: Caller, introspector: Caller) -> None:
        answer = issuer.token()
        at = time.time()
        if "access_token" not in answer.body:
            self._ledger.failed(f"{issuer.node.name}: {answer.status} {answer.body}")
            return
        issued = read_token(answer)
        self._ledger.issued(issued.kid, issuer.node.name, at)
        self._latest[issued.kid] = issued
        for verifier in self._verifiers:
            verifier.hand(*issued)
        self._introspect(introspector, issued)

    def _introspect(self, introspector: Caller, issued: Issued) -> None:
        answer, at = introspector.introspect(issued.token), time.time()
        self._ledger.checked(INTROSPECTION, issued.kid)
        if answer.body.get("active") is not True:
            why = f"{introspector.node.name}: {answer.status} {answer.body}"
            self._ledger.refused(INTROSPECTION, issued.kid, next(self._numbers), at, why)
