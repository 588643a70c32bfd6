"""Which credentials cost a computation of argon2id, and which outcomes are remembered."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from argon2 import PasswordHasher

from authz_server.clients.authentication import imported_secrets
from authz_server.clients.authentication.authenticator import ClientAuthenticator
from authz_server.clients.authentication.method import AuthenticationRequest
from authz_server.clients.authentication.registry import AuthenticationMethods
from authz_server.clients.authentication.shared_secret import SharedSecret
from authz_server.clients.authentication.slots import FairSlots
from authz_server.clients.authentication.throttle import FailureThrottle
from authz_server.clients.cache import ClientCache
from authz_server.database.change_feed import ChangeSet
from authz_server.errors import OAuthError
from authz_server.waiting import Lane, run
from support.registry import ACTOR

HOME, ATTACKER = "198.51.100.7", "203.0.113.66"
IMPORTED = "an imported secret"
PATIENCE_SECONDS = 30


class CountingArgon2(PasswordHasher):
    """Argon2id at its least cost, which counts computations and can be held up."""

    def __init__(self):
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.computed = 0
        self.began = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()

    def verify(self, *arguments, **options):
        self.computed += 1
        self.began.set()
        assert self.goes_on.wait(PATIENCE_SECONDS)
        return super().verify(*arguments, **options)


@pytest.fixture
def argon2(monkeypatch) -> CountingArgon2:
    counting = CountingArgon2()
    monkeypatch.setattr("authz_server.clients.secrets._argon2", counting)
    return counting


class Door:
    """An authenticator over the clients of a registry."""

    def __init__(self, registry) -> None:
        self.registry = registry
        self.directory = ClientCache(registry.secrets)
        self.methods = self.make_methods()
        self.authenticator = self.make_authenticator(FailureThrottle(1_000_000, 60))

    def make_methods(self) -> AuthenticationMethods:
        methods = [("authz-server", SharedSecret(self.directory, self.registry.secrets))]
        return AuthenticationMethods(methods)

    def make_authenticator(self, throttle: FailureThrottle) -> ClientAuthenticator:
        return ClientAuthenticator(self.directory, self.methods, throttle, self.registry.clock)

    def make_client(self, client_id: str, imported_secret: str = "") -> str:
        """Make a client; return its generated secret."""
        self.registry.create_client(id=client_id)
        return self.add_secret(client_id, imported_secret)

    def add_secret(self, client_id: str, imported_secret: str = "") -> str:
        imported = imported_secret.encode() or None
        return self.change("add_secret", client_id, imported_secret=imported)[1]

    def change(self, action: str, client_id: str, *arguments, **values):
        with self.registry.session() as session:
            act = getattr(self.registry.clients, action)
            result = act(session, client_id, *arguments, actor=ACTOR, **values)
        with self.registry.session() as session:
            self.directory.apply(session, ChangeSet(everything=True, subjects={}))
        return result

    def knock(self, client_id: str, secret: str, address: str = HOME) -> str:
        """Return the client's id, or the cause for which it is refused."""
        try:
            found = run(self.authenticator.authenticate(_request(client_id, secret, address)))
        except OAuthError as refused:
            return refused.cause
        return found.client.id

    def takes_long(self, client_id: str, secret: str) -> bool:
        """Return whether the answer waits for a computation, without making it."""
        coroutine = self.authenticator.authenticate(_request(client_id, secret, HOME))
        try:
            step = coroutine.send(None)
        except (StopIteration, OAuthError):
            return False
        coroutine.close()
        assert step.lane is Lane.SECRETS
        return True


def _request(client_id: str, secret: str, address: str) -> AuthenticationRequest:
    fields = {"client_id": client_id, "client_secret": secret}
    return AuthenticationRequest({key: fields[key] for key in fields if fields[key]}, {}, address)


@pytest.fixture
def door(registry, argon2) -> Door:
    assert argon2.computed == 0
    return Door(registry)


def test_client_that_moves_to_a_generated_secret_pays_nothing(door, argon2):
    """Case A2."""
    door.make_client("ministry", IMPORTED)
    generated = door.add_secret("ministry")
    assert not door.takes_long("ministry", generated)
    assert door.knock("ministry", generated) == "ministry"
    assert argon2.computed == 0


def test_imported_secret_is_computed_once(door, argon2):
    """Case A2."""
    door.make_client("ministry", IMPORTED)
    assert door.takes_long("ministry", IMPORTED)
    assert [door.knock("ministry", IMPORTED) for _ in range(3)] == ["ministry"] * 3
    assert argon2.computed == 1
    assert not door.takes_long("ministry", IMPORTED)


@pytest.mark.parametrize("client_id", ["ministry", "other", "no-such-client"])
def test_repeated_wrong_secret_is_computed_once(door, argon2, client_id):
    """Case A2."""
    door.make_client("ministry", IMPORTED)
    door.make_client("other")
    cause = "client_unknown" if client_id == "no-such-client" else "secret_wrong"
    assert door.takes_long(client_id, "a guess")
    assert [door.knock(client_id, "a guess", ATTACKER) for _ in range(3)] == [cause] * 3
    assert argon2.computed == 1
    assert not door.takes_long(client_id, "a guess")
    # For each client by itself, and for each secret.
    assert door.takes_long(client_id, "another guess")
    assert door.takes_long(client_id + "x", "a guess")


def test_secret_that_was_wrong_can_be_imported_later(door, argon2):
    """Case A2."""
    door.make_client("other", "another imported secret")
    door.make_client("ministry")
    assert door.knock("ministry", IMPORTED) == "secret_wrong"
    door.add_secret("ministry", IMPORTED)
    assert door.takes_long("ministry", IMPORTED)
    assert door.knock("ministry", IMPORTED) == "ministry"
    assert argon2.computed == 2


def test_client_that_is_enabled_again_gets_in_by_what_is_remembered(door, argon2):
    """Case A2."""
    door.make_client("ministry", IMPORTED)
    door.change("set_enabled", "ministry", enabled=False)
    assert [door.knock("ministry", IMPORTED) for _ in range(2)] == ["client_disabled"] * 2
    door.change("set_enabled", "ministry", enabled=True)
    assert not door.takes_long("ministry", IMPORTED)
    assert door.knock("ministry", IMPORTED) == "ministry"
    assert argon2.computed == 1


def test_proof_of_a_client_that_was_disabled_does_not_make_its_refusal_cheap(door, argon2):
    """Case A2."""
    door.make_client("ministry", IMPORTED)
    assert door.knock("ministry", IMPORTED) == "ministry"
    door.change("set_enabled", "ministry", enabled=False)
    before = argon2.computed
    assert door.takes_long("ministry", IMPORTED)
    assert door.knock("ministry", IMPORTED) == "client_disabled"
    assert argon2.computed == before + 1


def test_ended_imported_secret_is_forgotten(door):
    """Case A9."""
    door.make_client("ministry")
    secret, _ = door.change("add_secret", "ministry", imported_secret=IMPORTED.encode())
    door.make_client("other", "another imported secret")
    assert door.knock("ministry", IMPORTED) == "ministry"
    door.change("end_secret", "ministry", secret.id)
    assert door.knock("ministry", IMPORTED) == "secret_wrong"


def test_nothing_is_computed_while_no_client_has_an_imported_secret(door, argon2):
    """Case A2."""
    secret = door.make_client("ministry")
    for client_id, offered in (("ministry", secret), ("ministry", "x"), ("no-such-client", "x")):
        assert not door.takes_long(client_id, offered)
        door.knock(client_id, offered)
    assert argon2.computed == 0


def test_request_without_a_secret_costs_nothing(door, argon2):
    """Case A2."""
    door.make_client("ministry", IMPORTED)
    for client_id in ("ministry", "no-such-client"):
        assert not door.takes_long(client_id, "")
        assert door.knock(client_id, "") == "credentials_missing"
    assert argon2.computed == 0


def test_requests_at_once_with_one_secret_compute_it_once(door, argon2):
    """Case A2."""
    door.make_client("ministry", IMPORTED)
    with ThreadPoolExecutor(8) as pool:
        knocks = [pool.submit(door.knock, "ministry", IMPORTED) for _ in range(8)]
        assert [knock.result(PATIENCE_SECONDS) for knock in knocks] == ["ministry"] * 8
    assert argon2.computed == 1


def test_flood_of_guesses_takes_no_slot_from_a_client_that_has_proven_itself(door, argon2):
    """Case A13."""
    door.make_client("ministry", IMPORTED)
    generated = door.add_secret("ministry")
    assert door.knock("ministry", IMPORTED) == "ministry"
    argon2.began.clear()
    argon2.goes_on.clear()
    with ThreadPoolExecutor(12) as pool:
        flood = [pool.submit(door.knock, "ministry", f"guess {n}", ATTACKER) for n in range(12)]
        assert argon2.began.wait(PATIENCE_SECONDS)
        for secret in (IMPORTED, generated):
            assert door.knock("ministry", secret) == "ministry"
            assert door.knock("ministry", secret, ATTACKER) == "ministry"
        argon2.goes_on.set()
        causes = {guess.result(PATIENCE_SECONDS) for guess in flood}
    assert causes <= {"secret_wrong", "temporarily_unavailable"}


@pytest.mark.parametrize("attacked", ["ministry", "no-such-client"])
def test_flood_of_guesses_leaves_a_slot_to_the_first_request_of_a_client(door, argon2, attacked):
    """Case A13."""
    door.make_client("ministry", IMPORTED)
    argon2.goes_on.clear()
    with ThreadPoolExecutor(13) as pool:
        flood = [pool.submit(door.knock, attacked, f"guess {n}", ATTACKER) for n in range(12)]
        assert argon2.began.wait(PATIENCE_SECONDS)
        honest = pool.submit(door.knock, "ministry", IMPORTED)
        argon2.goes_on.set()
        assert honest.result(PATIENCE_SECONDS) == "ministry"
        for guess in flood:
            guess.result(PATIENCE_SECONDS)


def test_wrong_secret_that_waits_in_vain_is_asked_to_wait_longer(door, monkeypatch):
    """Case A13."""
    door.make_client("ministry", IMPORTED)
    slots = FairSlots(1, wait_seconds=0.05)
    monkeypatch.setattr(imported_secrets, "FairSlots", lambda _concurrency: slots)
    door.methods = door.make_methods()
    door.authenticator = door.make_authenticator(FailureThrottle(1, 60))
    assert door.knock("ministry", "a guess", ATTACKER) == "secret_wrong"
    with slots.take(HOME, "other"):
        assert door.knock("ministry", "another guess", ATTACKER) == "throttled"
        assert door.knock("ministry", "another guess", HOME) == "temporarily_unavailable"


def test_outcomes_are_remembered_in_bounded_space(door, monkeypatch):
    """Case A13."""
    monkeypatch.setattr(imported_secrets, "_REMEMBERED", 3)
    door.make_client("ministry", IMPORTED)
    for number in range(5):
        door.knock("ministry", f"guess {number}")
    forgotten = [door.takes_long("ministry", f"guess {number}") for number in range(5)]
    assert forgotten == [True, True, False, False, False]
