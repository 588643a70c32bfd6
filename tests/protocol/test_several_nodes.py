"""Two nodes of two worker processes each on one database: what every one of them has to know."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import NamedTuple
from urllib.parse import urlencode

import jwt
import pytest

from authz_server.assembly.operator import operator_services
from authz_server.settings import load_settings
from keys.lifecycle.orders import Revoke
from support.assertions import Signer, jwks_of, make_signer, new_key
from support.claims import claims_of, header_of
from support.dpop import ProofKey
from support.live_server import LiveServer
from support.orders import rotator_of
from support.parties import ACTOR, Credentials, Parties
from support.protocol import ENDPOINTS, FORM_TYPE, METHODS, TOKEN_ENDPOINTS
from support.secrets_watch import SecretsWatch
from support.settings_file import ISSUER, write_settings

IN_FORCE_SECONDS = 1.0
JWT_BEARER_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
PROVIDER, PROVIDER_KEY = "https://provider.example", new_key()
_SETTINGS = {
    "clients": {"failures_per_window": 1_000_000},
    "issuers": {"provider": {"issuer": PROVIDER, "jwks_file": "provider.json"}},
}


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: Mapping[str, str]


class Nodes:
    """Two servers; every request comes on a connection of its own, so that processes take turns.

    Clients and signers were made before the servers started, so that every process has them.
    """

    def __init__(self, servers: list[LiveServer], parties: Parties, cast: "Cast") -> None:
        self.servers = servers
        self.parties = parties
        self.cast = cast

    def new_client(self, method: str = "client_secret_post") -> Credentials:
        """Return a client that no other test has."""
        return self.cast.clients[method].pop()

    def post(self, number: int, endpoint: str, caller: Credentials, **further: str) -> Answer:
        return self.post_form(number, endpoint, caller.form(), **caller.headers(), **further)

    def post_form(
        self, number: int, endpoint: str, fields: Mapping[str, str], **further: str
    ) -> Answer:
        form = {"grant_type": "client_credentials", "token": "invented", **fields}
        headers = {"Content-Type": FORM_TYPE, **further}
        return self.send(number, "POST", ENDPOINTS[endpoint], urlencode(form), headers)

    def send(self, number: int, method: str, path: str, body=None, headers=None) -> Answer:
        server = self.servers[number % len(self.servers)]
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        with closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), answer.headers)


@dataclass(frozen=True)
class Cast:
    """Clients of each method, signers of each algorithm, and one that presents assertions."""

    clients: Mapping[str, list[Credentials]]
    signers: Mapping[str, list[Signer]]
    presenter: Credentials


def make_cast(parties: Parties) -> Cast:
    parties.make_resource_server()
    return Cast(
        clients={
            method: [parties.make_client(f"{method}-{number}", method) for number in range(10)]
            for method in METHODS
        },
        signers={
            alg: [
                make_signer(parties, f"signer-{alg.lower()}-{number}", time.time, alg)
                for number in range(2)
            ]
            for alg in ("ES256", "HS256")
        },
        presenter=parties.make_client(
            "presenter",
            grant_types=[JWT_BEARER_GRANT, "client_credentials"],
            properties={"jwt_bearer_subjects": [{"issuer": "provider", "subject": "officer"}]},
        ),
    )


@pytest.fixture(scope="module")
def nodes(module_database_url: str, tmp_path_factory) -> Iterator[Nodes]:
    directory = tmp_path_factory.mktemp("nodes")

    def write(**overrides):
        return write_settings(directory, module_database_url, overrides)

    watch = SecretsWatch()
    (directory / "provider.json").write_text(json.dumps(jwks_of(PROVIDER_KEY, kid="p")))
    parties = Parties(load_settings(write(**_SETTINGS)), watch)
    with parties.together():
        parties.create_first_keys()
        cast = make_cast(parties)
    with ExitStack() as running:
        # Each starts before the settings file is written again with the next one's ports.
        servers = [
            running.enter_context(LiveServer(write, directory, workers=2, **_SETTINGS))
            for _ in range(2)
        ]
        yield Nodes(servers, parties, cast)
        logs = [("log", server.log()) for server in servers]
    watch.verify_absent([*logs, ("audit trail", (directory / "audit.jsonl").read_text())])


def test_identifiers_and_keys_of_tokens(nodes: Nodes):
    """Cases C30, C32, G74."""
    client = nodes.new_client()

    def fetch(number: int) -> str:
        answer = nodes.post(number, TOKEN_ENDPOINTS[number // 2 % 2], client)
        assert answer.status == 200, answer.body
        return answer.body.decode().split('"')[3]

    with ThreadPoolExecutor(4) as pool:
        tokens = list(pool.map(fetch, range(160)))
    documents = {nodes.send(n, "GET", "/.well-known/jwks.json").body for n in range(12)}
    assert len({claims_of(token)["jti"] for token in tokens}) == 160
    published = jwt.PyJWKSet.from_json(documents.pop().decode()).keys
    assert not documents
    assert {header_of(token)["kid"] for token in tokens} <= {key.key_id for key in published}


def test_headers_of_the_profile_pass_through_the_real_server(nodes: Nodes):
    """Case K124."""
    client = nodes.new_client()
    body = urlencode({"grant_type": "client_credentials"} | client.form())
    stamp = formatdate(usegmt=True)
    headers = {"Content-Type": FORM_TYPE, "timestamp": stamp, "message_id": "m-2021.1216:1"}
    answer = nodes.send(0, "POST", ENDPOINTS["g2p"], body, headers | {"accept-language": "fr"})
    assert (answer.status, answer.headers["message_id"]) == (200, "m-2021.1216:1")
    stale = headers | {"timestamp": formatdate(0, usegmt=True), "accept-language": "fr"}
    answer = nodes.send(1, "POST", ENDPOINTS["g2p"], body, stale)
    assert (answer.status, answer.headers["message_id"]) == (400, "m-2021.1216:1")
    assert answer.headers["Content-Language"] == "fr"
    assert "trop éloigné" in answer.body.decode()


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_a_proof_is_accepted_once_by_all(nodes: Nodes, endpoint: str):
    """Cases A16, D51: 64 submissions at once, over the processes of both nodes."""
    client = nodes.new_client("client_secret_basic")
    proof = ProofKey().prove(time.time(), ENDPOINTS[endpoint])
    together = threading.Barrier(64)

    def submit(number: int) -> Answer:
        together.wait()
        return nodes.post(number, endpoint, client, DPoP=proof)

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(submit, range(64)))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 63
    refusals = [json.loads(answer.body) for answer in answers if answer.status == 400]
    assert {refusal["error"] for refusal in refusals} == {"invalid_dpop_proof"}


def end_secret(services, session, client: Credentials) -> None:
    for secret in services.clients.get_client(session, client.id).secrets:
        services.clients.end_secret(session, client.id, secret.id, actor=ACTOR)


def disable(services, session, client: Credentials) -> None:
    services.clients.set_enabled(session, client.id, actor=ACTOR, enabled=False)


def delete(services, session, client: Credentials) -> None:
    services.clients.delete_client(session, client.id, actor=ACTOR)


def expire(services, session, client: Credentials) -> None:
    now = datetime.now(UTC)
    services.clients.update_client(session, client.id, actor=ACTOR, expires_at=now)


def change_method(services, session, client: Credentials) -> None:
    other = next(each for each in METHODS if each != client.method)
    services.clients.update_client(session, client.id, actor=ACTOR, authentication_method=other)


ENDINGS = (disable, delete, expire, change_method, end_secret)


@pytest.mark.parametrize("method", METHODS)
def test_client_ended_is_refused_by_all_within_a_second(nodes: Nodes, method: str):
    """Cases A12, A15."""
    clients = {ending: nodes.new_client(method) for ending in ENDINGS}
    for client in clients.values():
        assert {nodes.post(number, "token", client).status for number in range(8)} == {200}
    with nodes.parties.change() as (services, session):
        for ending, client in clients.items():
            ending(services, session, client)
    time.sleep(IN_FORCE_SECONDS)
    for ending, client in clients.items():
        for number in range(16):
            answer = nodes.post(number, tuple(ENDPOINTS)[number // 4], client)
            assert answer.status == 401, (ending, answer.body)
            assert b'"invalid_client"' in answer.body


@pytest.mark.parametrize("method", METHODS)
def test_secret_rotated_with_overlap(nodes: Nodes, method: str):
    """Case A12."""
    old = nodes.new_client(method)
    new = nodes.parties.add_secret(old.id, method)
    time.sleep(IN_FORCE_SECONDS)
    for number in range(16):
        endpoint = tuple(ENDPOINTS)[number // 4]
        assert nodes.post(number, endpoint, old).status == 200
        assert nodes.post(number, endpoint, new).status == 200
    with nodes.parties.change() as (services, session):
        secrets = services.clients.get_client(session, old.id).secrets
        ends_at = datetime.now(UTC) + timedelta(seconds=2)
        services.clients.end_secret(session, old.id, secrets[0].id, actor=ACTOR, at=ends_at)
    time.sleep(IN_FORCE_SECONDS)
    if datetime.now(UTC) < ends_at - timedelta(seconds=0.5):
        assert nodes.post(0, "token", old).status == 200
    time.sleep(max(0, (ends_at - datetime.now(UTC)).total_seconds()))
    for number in range(16):
        endpoint = tuple(ENDPOINTS)[number // 4]
        assert nodes.post(number, endpoint, old).status == 401
        assert nodes.post(number, endpoint, new).status == 200


@pytest.mark.parametrize("alg", ["ES256", "HS256"])
def test_one_assertion_submitted_64_times_at_once(nodes: Nodes, alg: str):
    """Case D51: one success over all processes, nodes and endpoints."""
    signer = nodes.cast.signers[alg][0]
    for _ in range(3):
        form = {"token": "x", "grant_type": "client_credentials", **signer.form()}
        body = urlencode(form)

        def submit(number: int, body: str = body) -> int:
            endpoint = ENDPOINTS[tuple(ENDPOINTS)[number // 2 % len(ENDPOINTS)]]
            headers = {"Content-Type": FORM_TYPE}
            return nodes.send(number, "POST", endpoint, body, headers).status

        with ThreadPoolExecutor(32) as pool:
            statuses = Counter(pool.map(submit, range(64)))
        assert statuses == {200: 1, 401: 63}


@pytest.mark.parametrize("alg", ["ES256", "HS256"])
def test_an_assertion_authenticates_at_every_endpoint(nodes: Nodes, alg: str):
    """Cases A1, D48, D51: every refusal has one form."""
    signer = nodes.cast.signers[alg][1]
    key = "w" * 43 if alg == "HS256" else new_key(alg)
    forged = Signer(signer.id, key, time.time, alg, signer.kid)
    unknown = Signer("no-such-client", key, time.time, alg, signer.kid)
    for number, endpoint in enumerate(ENDPOINTS):
        form = signer.form()
        assert nodes.post_form(number, endpoint, form).status == 200
        refused = {
            "replayed": form,
            "forged": forged.form(),
            "unknown": unknown.form(),
            "for the endpoint": signer.form(signer.assertion(aud=f"{ISSUER}{ENDPOINTS[endpoint]}")),
            "expired": signer.form(signer.assertion(iat=1, exp=2)),
            "no assertion": signer.form("x"),
        }
        answers = {
            name: nodes.post_form(other, endpoint, each)
            for other, (name, each) in enumerate(refused.items())
        }
        assert {answer.status for answer in answers.values()} == {401}, answers
        bodies = [json.loads(answer.body) for answer in answers.values()]
        alike = [{**body, "request_id": None} for body in bodies]
        assert alike == alike[:1] * len(refused)
        assert alike[0]["error"] == "invalid_client"


def test_one_assertion_of_an_issuer_submitted_64_times_at_once(nodes: Nodes):
    """Case D51: one token of the JWT bearer grant over all processes, nodes and addresses."""
    caller = nodes.cast.presenter
    officer = Signer(PROVIDER, PROVIDER_KEY, time.time, kid="p")
    for _ in range(3):
        assertion = officer.assertion(sub="officer")
        form = {"grant_type": JWT_BEARER_GRANT, "assertion": assertion, **caller.form()}

        def submit(number: int, form: Mapping[str, str] = form) -> Answer:
            return nodes.post_form(number, TOKEN_ENDPOINTS[number // 2 % 2], form)

        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(submit, range(64)))
        assert sorted(answer.status for answer in answers) == [200] + [400] * 63
        refusals = [json.loads(answer.body) for answer in answers if answer.status == 400]
        assert {refusal["error"] for refusal in refusals} == {"invalid_grant"}


def ask(nodes: Nodes, number: int, caller: Credentials, token: str) -> dict:
    form = urlencode({"token": token} | caller.form())
    headers = {"Content-Type": FORM_TYPE} | caller.headers()
    answer = nodes.send(number, "POST", ENDPOINTS["introspect"], form, headers)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def test_key_revoked_is_refused_by_all_within_the_refresh(nodes: Nodes):
    """Cases G74, G83."""
    client = nodes.new_client()
    token = json.loads(nodes.post(0, "token", client).body)["access_token"]
    kid = header_of(token)["kid"]
    assert all(ask(nodes, number, client, token)["active"] for number in range(16))
    with operator_services(nodes.parties.settings) as services:
        rotator_of(services).apply(Revoke(kid, "a drill"), actor=ACTOR)
    time.sleep(IN_FORCE_SECONDS)
    host = {"Host": ISSUER.removeprefix("https://")}
    jwks = ("GET", "/.well-known/jwks.json", None, host)
    answers = [nodes.send(number, *jwks) for number in range(16)]
    assert {answer.headers["Cache-Control"] for answer in answers} == {"public, max-age=60"}
    assert len({answer.headers["ETag"] for answer in answers}) == 1
    (document,) = {answer.body for answer in answers}
    published = {key["kid"] for key in json.loads(document)["keys"]}
    assert kid not in published
    for number in range(16):
        assert ask(nodes, number, client, token) == {"active": False}
        fresh = json.loads(nodes.post(number, "token", client).body)["access_token"]
        assert header_of(fresh)["kid"] in published
        assert ask(nodes, number + 1, client, fresh)["active"] is True


def test_every_process_says_which_epoch_it_has(nodes: Nodes):
    """Case G83."""
    with operator_services(nodes.parties.settings) as services:
        deadline = time.monotonic() + 20
        while True:
            (ring,) = services.key_store.load_rings(services.clock())
            reports = services.key_store.load_nodes()
            if len(reports) == 4 and {each.epoch_seen for each in reports} == {ring.epoch}:
                break
            assert time.monotonic() < deadline, reports
            time.sleep(0.1)
    assert len({each.node for each in reports}) == 4
    assert all(abs(each.clock_offset_seconds) < 1 for each in reports)
