"""Nodes of several workers on one database and one Vault, with clients whose requests are kept."""

import math
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt

from authz_server.settings import load_settings
from support.claims import header_of
from support.expectations import Act, Expectations, KnownToken
from support.live_server import LiveServer, call_cli
from support.parties import ACTOR, Credentials, Parties, make_demo
from support.secrets_watch import SecretsWatch
from support.settings_file import ISSUER, write_secret, write_settings
from support.token_exchange import GRANT_TYPE, TYPES

#: How long a change may take to reach every process, on a busy machine.
SPREAD_SECONDS = 3.0
CLIENTS = 5
SCOPES = {"mapper": "mapper/link", "disburse": "disburse/disburse"}
#: The shortest durations that fit together: keys change every few seconds.
TIMES = {
    "jwks_maximum_age_seconds": 5,
    "refresh_interval_seconds": 1,
    "snapshot_lifetime_seconds": 6,
    "clock_tolerance_seconds": 1,
    "cautious_jwks_maximum_age_seconds": 5,
}
RING_TIMES = {"prepublication_seconds": 9, "rotation_interval_seconds": 12}


@dataclass(frozen=True)
class Exchange:
    """One request to a node and its answer; status 0: there was none."""

    node: int
    started: float
    ended: float
    status: int
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sight:
    """The answer of a node about a token."""

    token: KnownToken
    exchange: Exchange


class RandomSite:
    """The nodes, their clients, and everything that was asked and answered."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a site
        self,
        directory: Path,
        database_url: str,
        nodes: int,
        workers: int,
        rings: dict[str, Any],
        prefixes: tuple[tuple[str, ...], ...],
        **overrides: Any,
    ) -> None:
        self.directory, self.database_url = directory, database_url
        self._overrides = overrides
        self._keys = overrides.pop("keys", {}) | TIMES
        self._rings = {name: ring | RING_TIMES for name, ring in rings.items()}
        self.ring_names = list(rings)
        self.expected = Expectations()
        self.problems: list[str] = []
        self.sights: list[Sight] = []
        self.requests: list[tuple[frozenset[str], Exchange]] = []
        self.tokens: list[KnownToken] = []
        self.faults: list[tuple[int | None, float, float]] = []
        self.exceptions: list[tuple[float, float]] = []
        self.wrong_clocks: set[int] = set()
        self.verified = 0
        self._until = threading.Event()
        self.folders = [directory / f"node-{number}" for number in range(nodes)]
        shared = {name: token_hex(32) for name in ("pepper", "key-encryption-key")}
        for folder in self.folders:
            folder.mkdir()
            for name, text in shared.items():
                write_secret(folder / name, text)
        settings = load_settings(self._write(self.folders[0]))
        self.parties = Parties(settings, SecretsWatch())
        with self.parties.together():
            self.parties.create_first_keys()
            self.demo = make_demo(self.parties)
            self.credentials = {
                name: self._make_client(name)
                for name in (f"client-{number}" for number in range(CLIENTS))
            }
            with self.parties.change() as (services, session):
                services.clients.update_resource_server(
                    session, "disburse", actor=ACTOR, token_format="reference"
                )
        self.servers = [
            LiveServer(
                partial(self._write, folder),
                folder,
                workers=workers,
                prefix=prefix,
                unforked=bool(prefix),
            )
            for folder, prefix in zip(self.folders, prefixes, strict=True)
        ]

    def _write(self, folder: Path, **overrides: Any) -> Path:
        tables = self._overrides | {"keys": self._keys | {"rings": self._rings}} | overrides
        return write_settings(folder, self.database_url, tables)

    def _make_client(self, name: str) -> Credentials:
        properties = {"token_exchange": {"subjects": ["*"], "audiences": ["mapper"]}}
        return self.parties.make_client(
            name,
            allowed_scopes=list(SCOPES.values()),
            grant_types=["client_credentials", GRANT_TYPE],
            properties=properties,
        )

    def remake_client(self, name: str) -> Credentials:
        """Register a deleted client again, with another secret."""
        return self._make_client(name)

    @property
    def config(self) -> Path:
        """The settings of the first node."""
        return self.servers[0].settings_path

    def command(self, *arguments: str) -> tuple[Act, str]:
        """Run a command; return when, whether it succeeded, and what it printed."""
        started = time.monotonic()
        run = call_cli(*arguments, config=self.config)
        return Act(started, time.monotonic(), run.returncode == 0), run.stdout + run.stderr

    @contextmanager
    def fault(self, node: int | None = None) -> Iterator[None]:
        """Let the block be a time of trouble for a node, or for all."""
        started = time.monotonic()
        self.faults.append((node, started, float("inf")))
        place = len(self.faults) - 1
        try:
            yield
        finally:
            self.faults[place] = (node, started, time.monotonic() + SPREAD_SECONDS)

    def is_excused(self, exchange: Exchange) -> bool:
        """Return whether something was out of order while that was asked."""
        return any(
            node in {None, exchange.node}
            and started <= exchange.ended
            and ended >= exchange.started
            for node, started, ended in self.faults
        )

    def latest_fault(self, exchange: Exchange) -> str:
        """Return how long before a request the latest fault was over, for a message."""
        ends = [ended for _, _, ended in self.faults if ended <= exchange.started]
        return f"{exchange.started - max(ends, default=0.0):.1f} s after a fault"

    # ------------------------------------------------------------------------------- clients

    @contextmanager
    def load(self, seed: int, threads: int = 3) -> Iterator[None]:
        """Have clients ask for tokens and about them, in threads, while the block runs."""
        running = [
            threading.Thread(target=self._play, args=(random.Random(f"{seed}/{number}"),))
            for number in range(threads)
        ]
        for thread in running:
            thread.start()
        try:
            yield
        finally:
            self._until.set()
            for thread in running:
                thread.join()

    def _play(self, chance: random.Random) -> None:
        verifiers = [CachingVerifier(self, node) for node in range(len(self.servers))]
        with httpx.Client(timeout=20, trust_env=False) as client:
            while not self._until.is_set():
                try:
                    self._step(chance, client)
                    token = self.tokens[-1] if self.tokens else None
                    if token is not None and token.kid:
                        self.problems += chance.choice(verifiers).check(token, client)
                except Exception as error:  # noqa: BLE001 - the thread must go on
                    self.problems.append(f"client: {error!r}")
                time.sleep(0.02)

    def _step(self, chance: random.Random, client: httpx.Client) -> None:
        known = self.tokens[-150:]
        what = chance.random()
        if what < 0.4 or not known:
            self._request(chance, client)
        elif what < 0.5:
            self._exchange(chance, client, chance.choice(known))
        elif what < 0.93:
            self.introspect(chance.choice(known), chance.randrange(len(self.servers)), client)
        else:
            self._revoke(chance, client, chance.choice(known))

    def post(
        self, node: int, path: str, form: dict, caller: Credentials, client: httpx.Client
    ) -> Exchange:
        """Send a form to a node."""
        started = time.monotonic()
        url = self.servers[node].base_url + path
        try:
            answer = client.post(url, data=form | caller.form(), headers=caller.headers())
        except httpx.TransportError:
            return Exchange(node, started, time.monotonic(), 0)
        ended = time.monotonic()
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        body = answer.json() if is_json else {"text": answer.text}
        return Exchange(node, started, ended, answer.status_code, body)

    def _request(self, chance: random.Random, client: httpx.Client) -> None:
        name, server = chance.choice(list(self.credentials)), chance.choice(list(SCOPES))
        form = {"grant_type": "client_credentials", "scope": SCOPES[server]}
        node = chance.randrange(len(self.servers))
        done = self.post(node, "/oauth2/token", form, self.credentials[name], client)
        self._keep(done, _names(name, server), ())

    def _exchange(self, chance: random.Random, client: httpx.Client, origin: KnownToken) -> None:
        if not origin.kid:
            return
        name = chance.choice(list(self.credentials))
        form = {
            "grant_type": GRANT_TYPE,
            "subject_token": origin.text,
            "subject_token_type": f"{TYPES}access_token",
        }
        node = chance.randrange(len(self.servers))
        done = self.post(node, "/oauth2/token", form, self.credentials[name], client)
        self._keep(done, _names(name, "mapper"), (origin,))

    def _keep(self, done: Exchange, names: frozenset[str], origins: tuple[KnownToken, ...]) -> None:
        if not origins:
            self.requests.append((names, done))
        elif done.status not in {200, 400, 401}:
            self.requests.append((frozenset(), done))
        if done.status != 200:
            return
        text = done.body["access_token"]
        kid = header_of(text)["kid"] if text.count(".") == 2 else ""
        own = names | {f"token:{text}"} | ({f"key:{kid}"} if kid else set())
        self.tokens.append(KnownToken(text, done.started, done.ended, own, done.node, kid, origins))

    def introspect(self, token: KnownToken, node: int, client: httpx.Client) -> Exchange:
        """Ask a node about a token, as its resource server."""
        caller = self.demo.mapper if "server:mapper" in token.names else self.demo.disburse
        done = self.post(node, "/oauth2/introspect", {"token": token.text}, caller, client)
        self.sights.append(Sight(token, done))
        return done

    def _revoke(self, chance: random.Random, client: httpx.Client, token: KnownToken) -> None:
        owner = next(name[7:] for name in token.names if name.startswith("client:"))
        node = chance.randrange(len(self.servers))
        caller = self.credentials[owner]
        done = self.post(node, "/oauth2/revoke", {"token": token.text}, caller, client)
        # A client that is refused has revoked nothing; one that was registered again may not.
        if done.status != 401:
            blocked = self.expected.is_blocked(
                frozenset({f"gone:{owner}"}), done.started - 30, done.ended
            )
            is_certain = done.status == 200 and blocked is False
            act = Act(done.started, done.ended, is_certain)
            self.expected.cut(f"token:{token.text}", act)

    # -------------------------------------------------------------------------------- judging

    def judge(self) -> list[str]:
        """Return what cannot be right of all that was answered."""
        found = list(self.problems)
        for sight in self.sights:
            found += self._judge_sight(sight)
        for names, done in self.requests:
            found += self._judge_request(names, done)
        return found

    def _judge_sight(self, sight: Sight) -> Iterator[str]:
        done = sight.exchange
        if done.status != 200:
            if not self.is_excused(done):
                yield f"introspection answered {done}, {self.latest_fault(done)}"
            return
        worth = self.expected.worth(sight.token, done.started, done.ended)
        answer = "active" if done.body["active"] else "inactive"
        # Keys change within the interval at which they are read.
        late = self.expected.worth(sight.token, done.started - SPREAD_SECONDS, done.ended)
        if worth == answer or "either" in {worth, late}:
            return
        # A node notices within a second that its clock leapt; until then tokens seem to be over.
        if answer == "inactive" and done.node in self.wrong_clocks and self.is_excused(done):
            return
        reasons = self.expected.reasons(sight.token, done.started, done.ended)
        yield f"{answer} where it is {worth}: {sight} {reasons}"

    def _judge_request(self, names: frozenset[str], done: Exchange) -> Iterator[str]:
        if done.status in {0, 503}:
            if not self.is_excused(done):
                yield f"a request was answered {done}, {self.latest_fault(done)}"
            return
        if not names:
            yield f"an exchange was answered {done}"
            return
        blocked = self.expected.is_blocked(names, done.started - SPREAD_SECONDS, done.ended)
        if blocked is None:
            return
        if blocked and done.status == 200:
            yield f"a token for what is blocked: {sorted(names)} {done.node} {done.started}"
        elif not blocked and done.status != 200:
            yield f"no token for what is not blocked: {sorted(names)} {done}"


class CachingVerifier:
    """Verifies tokens as an API does that keeps the JWKS for its `max-age`."""

    def __init__(self, site: RandomSite, node: int) -> None:
        self._site, self._node = site, node
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._kept_until = -math.inf

    def check(self, token: KnownToken, client: httpx.Client) -> list[str]:
        """Return why a good token would be refused; empty if it is not, or need not be good."""
        now = time.monotonic()
        if now > self._kept_until and not self._fetch(client):
            return []
        problem = ""
        if token.kid not in self._keys:
            problem = f"the key of {token} was not known to a verifier since {self._fetched_at}"
            if not self._fetch(client):
                return []
        if token.kid in self._keys:
            key = self._keys[token.kid]
            jwt.decode(token.text, key, [key.algorithm_name], options={"verify_aud": False})
            self._site.verified += 1
        else:
            problem = f"the key of {token} is not in the JWKS"
        worth = self._site.expected.worth(token, now, time.monotonic())
        if not problem or worth != "active" or self._is_exception(now):
            return []
        return [problem]

    def _is_exception(self, now: float) -> bool:
        oldest = now - TIMES["jwks_maximum_age_seconds"] - SPREAD_SECONDS
        return any(started <= now and ended >= oldest for started, ended in self._site.exceptions)

    def _fetch(self, client: httpx.Client) -> bool:
        began = time.monotonic()
        try:
            # By another name, documents are not for caches.
            answer = client.get(
                f"{self._site.servers[self._node].base_url}/.well-known/jwks.json",
                headers={"Host": urlsplit(ISSUER).netloc},
            )
        except httpx.TransportError:
            return False
        if answer.status_code != 200:
            return False
        self._keys = {key["kid"]: jwt.PyJWK(key) for key in answer.json()["keys"]}
        maximum_age = re.search(r"max-age=(\d+)", answer.headers["cache-control"])
        assert maximum_age is not None
        self._fetched_at, self._kept_until = began, began + int(maximum_age[1])
        return True


def _names(client: str, server: str) -> frozenset[str]:
    return frozenset(
        {
            "all",
            f"client:{client}",
            f"gone:{client}",
            f"scope:{SCOPES[server]}",
            f"server:{server}",
            f"stop:client:{client}",
            f"stop:scope:{SCOPES[server]}",
            f"stop:resource-server:{server}",
        }
    )
