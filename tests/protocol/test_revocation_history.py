"""Revocations and introspections at once, at servers of several processes: no stale answer."""

import itertools
import random
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import httpx
import pytest

from authz_server.operations.stops import lift_stop, plan_stop, set_stop
from authz_server.settings import load_settings
from support.databases import copied_database
from support.history import Entry, History
from support.live_server import LiveServer
from support.parties import ACTOR, Credentials, Demo, Parties, demo_with_keys
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings, write_shared_secrets

SECONDS = 2.0
THREADS = 6
#: However slow the machine is, each thread takes so many turns.
LEAST_TURNS = 4
#: One for each test of a site, made before the servers start.
CLIENTS = 4
SCOPE = {"jwt": "mapper/link", "reference": "disburse/disburse"}
#: Reading the certificates of the machine takes longer than a request.
TRUST = ssl.create_default_context()


class Cluster:
    """Servers of several worker processes on one database."""

    def __init__(self, urls: list[str], demo: Demo, parties: Parties) -> None:
        self.urls, self.demo, self.parties = urls, demo, parties
        self.history = History()
        self._turn = itertools.count()

    def post(self, path: str, form: dict, caller: Credentials, client: httpx.Client):
        """Send a form to one server after the other; None where there was no answer."""
        base = self.urls[next(self._turn) % len(self.urls)]
        data = caller.form() | form
        try:
            return client.post(base + path, data=data, headers=caller.headers(), timeout=10)
        except httpx.TransportError:
            return None

    def issue(self, scope: str, client: httpx.Client) -> str:
        """Return a new token of the Basic client."""
        form = {"grant_type": "client_credentials", "scope": scope}
        started = time.monotonic()
        answer = self.post("/oauth2/token", form, self.demo.basic, client)
        assert answer is not None
        assert answer.status_code == 200, answer.text
        token = answer.json()["access_token"]
        self.history.add(Entry("issue", token, started, time.monotonic(), "done"))
        return token

    def revoke(self, token: str, client: httpx.Client) -> None:
        """Revoke the token; note whether that was acknowledged."""
        started = time.monotonic()
        answer = self.post("/oauth2/revoke", {"token": token}, self.demo.basic, client)
        done = answer is not None and answer.status_code == 200
        outcome = "done" if done else "perhaps"
        self.history.add(Entry("revoke", token, started, time.monotonic(), outcome))

    def introspect(self, token: str, caller: Credentials, client: httpx.Client) -> str:
        """Ask about the token, note and return the outcome."""
        started = time.monotonic()
        answer = self.post("/oauth2/introspect", {"token": token}, caller, client)
        outcome = "perhaps"
        if answer is not None and answer.status_code == 200:
            outcome = "active" if answer.json()["active"] else "inactive"
        self.history.add(Entry("introspect", token, started, time.monotonic(), outcome))
        return outcome


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "two-nodes-postgresql"])
def site(request, tmp_path_factory) -> Iterator[tuple[list[str], list[Demo], Parties]]:
    """A server of four processes on each database, and two of two on one PostgreSQL.

    The parties of each test are the same but for the client.
    """
    nodes = 2 if request.param.startswith("two") else 1
    directory = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        dialect = request.param.rpartition("-")[2]
        url = stack.enter_context(copied_database(request, dialect, directory))
        write = partial(_write, directory, url)
        write_shared_secrets(directory)
        parties = Parties(load_settings(write()), SecretsWatch())
        demo = demo_with_keys(parties, url, directory)
        with parties.together():
            with parties.change() as (services, session):
                services.clients.update_resource_server(
                    session, "disburse", actor=ACTOR, token_format="reference"
                )
            clients = [
                parties.make_client(
                    f"client-{number}", "client_secret_basic", allowed_scopes=list(SCOPE.values())
                )
                for number in range(CLIENTS)
            ]
        servers = [
            stack.enter_context(LiveServer(write, directory, workers=4 // nodes))
            for _ in range(nodes)
        ]
        demos = [replace(demo, clients={client.method: client}) for client in clients]
        yield [server.base_url for server in servers], demos, parties


@pytest.fixture
def cluster(site) -> Cluster:
    """The servers, and a client of this test alone that every process knows."""
    urls, demos, parties = site
    return Cluster(urls, demos.pop(), parties)


def _write(directory, database_url: str, **overrides):
    return write_settings(directory, database_url, overrides)


def play(cluster: Cluster, number: int, until: float) -> None:
    """Issue, ask, revoke and ask again, each time over another connection or the same."""
    chance = random.Random(number)
    with httpx.Client(verify=TRUST) as kept:
        turns = 0
        while turns < LEAST_TURNS or time.monotonic() < until:
            turns += 1
            form = chance.choice(list(SCOPE))
            caller = cluster.demo.mapper if form == "jwt" else cluster.demo.disburse
            token = cluster.issue(SCOPE[form], kept)
            asking = [
                threading.Thread(target=_ask_often, args=(cluster, token, caller, chance.random()))
                for _ in range(2)
            ]
            for thread in asking:
                thread.start()
            cluster.introspect(token, caller, kept)
            cluster.revoke(token, kept)
            for _ in range(4):
                cluster.introspect(token, caller, kept)
            for thread in asking:
                thread.join()


def _ask_often(cluster: Cluster, token: str, caller: Credentials, wait: float) -> None:
    # A connection of its own, so that another process answers.
    with httpx.Client(verify=TRUST) as client:
        time.sleep(wait / 100)
        for _ in range(3):
            cluster.introspect(token, caller, client)


def test_no_introspection_after_a_revocation_says_active(cluster: Cluster):
    """Case F67, Case F72."""
    until = time.monotonic() + SECONDS
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda number: play(cluster, number, until), range(THREADS)))
    assert cluster.history.contradictions() == []
    entries = cluster.history.entries
    revoked = [each for each in entries if (each.operation, each.outcome) == ("revoke", "done")]
    assert len(revoked) >= THREADS * LEAST_TURNS
    # With no fault about, nothing is left open.
    assert [each for each in entries if each.outcome == "perhaps"] == []


def test_a_disabled_client_has_no_active_token_from_the_change_on(cluster: Cluster):
    """Case E64."""
    with httpx.Client(verify=TRUST) as client:
        tokens = {form: [cluster.issue(SCOPE[form], client) for _ in range(4)] for form in SCOPE}
        callers = {"jwt": cluster.demo.mapper, "reference": cluster.demo.disburse}
        for form in SCOPE:
            assert cluster.introspect(tokens[form][0], callers[form], client) == "active"
        with cluster.parties.change() as (services, session):
            services.clients.set_enabled(session, cluster.demo.basic.id, actor=ACTOR, enabled=False)
    # Whichever process answers: each request over a connection of its own.
    for form, each in tokens.items():
        for token in each * 3:
            with httpx.Client(verify=TRUST) as client:
                assert cluster.introspect(token, callers[form], client) == "inactive"


def test_a_stop_counts_everywhere_when_its_command_returns(cluster: Cluster):
    """At introspection on every process; new tokens are refused soon."""
    with httpx.Client(verify=TRUST) as client:
        token = cluster.issue(SCOPE["jwt"], client)
        with cluster.parties.change() as (services, _):
            planned = plan_stop(services, "client", cluster.demo.basic.id)
            set_stop(services, planned, reason="a test", actor=ACTOR)
        for _ in range(8):
            assert cluster.introspect(token, cluster.demo.mapper, client) == "inactive"
        form = {"grant_type": "client_credentials", "scope": SCOPE["jwt"]}
        refused, deadline = 0, time.monotonic() + 30
        while refused < 8:
            answer = cluster.post("/oauth2/token", form, cluster.demo.basic, client)
            refused = refused + 1 if answer.json().get("error") == "unauthorized_client" else 0
            assert time.monotonic() < deadline, answer.text
        with cluster.parties.change() as (services, _):
            lift_stop(services, "client", planned.subject, reason="a test", actor=ACTOR)
        for _ in range(8):
            assert cluster.introspect(token, cluster.demo.mapper, client) == "active"


def test_a_cut_off_counts_everywhere_when_its_command_returns(cluster: Cluster):
    """Case F72."""
    with httpx.Client(verify=TRUST) as client:
        tokens = {form: [cluster.issue(SCOPE[form], client) for _ in range(4)] for form in SCOPE}
    callers = {"jwt": cluster.demo.mapper, "reference": cluster.demo.disburse}
    with cluster.parties.change() as (services, session):
        services.revocations.cut_off(
            session,
            kind="client",
            subject=cluster.demo.basic.id,
            instant_microseconds=time.time_ns() // 1_000,
            actor=ACTOR,
        )
    for form, each in tokens.items():
        for token in each * 3:
            with httpx.Client(verify=TRUST) as client:
                assert cluster.introspect(token, callers[form], client) == "inactive"
    with httpx.Client(verify=TRUST) as client:
        after = {form: cluster.issue(SCOPE[form], client) for form in SCOPE}
        for form, token in after.items():
            assert cluster.introspect(token, callers[form], client) == "active"
