"""Methods beside shared secrets: one order, one throttle, one cost for all of them."""

from functools import partial
from typing import ClassVar

import msgspec
import pytest

from authz_server.clients.authentication.authenticator import STAND_IN, ClientAuthenticator
from authz_server.clients.authentication.method import (
    AuthenticationRequest,
    ClientAuthenticationMethod,
    Credentials,
    Reading,
    Verdict,
)
from authz_server.clients.authentication.registry import AuthenticationMethods
from authz_server.clients.authentication.shared_secret import SharedSecret
from authz_server.clients.authentication.throttle import FailureThrottle
from authz_server.clients.cache import ClientCache, SecretEntry
from authz_server.clients.secrets import SecretScheme
from authz_server.errors import OAuthError
from authz_server.plugin_api.testing import ClientAuthenticationMethodContract
from authz_server.waiting import Lane, Step, run
from support.clock import FakeClock

ADDRESS = "198.51.100.7"
SECRETS = SecretScheme(b"p" * 32, argon2_concurrency=1)
BASE = msgspec.structs.replace(
    ClientAuthenticationMethodContract.client,
    secrets=(SecretEntry("the-secret", SECRETS.digest(b"right"), "", float("inf")),),
)


class Assertion(ClientAuthenticationMethod):
    """Reads the client id from what is presented, and waits for a record of its use."""

    NAMES = ("example_assertion",)
    REGISTRATIONS: ClassVar = {"example_assertion": NAMES}

    def __init__(self):
        self.used, self.verified, self.accepted, self.fault = set(), [], [], None

    def recognise(self, request):
        """Return the assertion in the form."""
        assertion = request.form.get("client_assertion")
        if assertion is None:
            return None
        claimed = assertion.partition("/")[0]
        return Credentials("example_assertion", (Reading(claimed, assertion.encode()),))

    def verify(self, reading, client, *_):
        """Defer to a step for every client."""
        self.verified.append(client.id)
        return Verdict(cause="assertion_unchecked", further=partial(self._check, reading))

    async def _check(self, reading):
        return await Step(Lane.DATABASE, partial(self._use, reading))

    def _use(self, reading):
        if self.fault:
            raise OAuthError(self.fault)
        if reading.proof in self.used or not reading.proof.endswith(b"/right"):
            return Verdict(cause="assertion_wrong")
        self.used.add(reading.proof)
        return Verdict("assertion")

    def note_accepted(self, readings, credential):
        """Note it for the test."""
        self.accepted.append((len(readings), credential))


class Certificate(ClientAuthenticationMethod):
    """Reads a certificate from a header, two registrations with one name each."""

    NAMES = ("example_tls", "example_self_signed")
    REGISTRATIONS: ClassVar = {"example_tls": NAMES[:1], "example_self_signed": NAMES[1:]}

    def recognise(self, request):
        """Return the certificate, where nothing else is offered."""
        certificate, client_id = request.headers.get("client-cert"), request.form.get("client_id")
        if not certificate or not client_id or "client_secret" in request.form:
            return None
        name = "example_self_signed" if certificate.startswith("self") else "example_tls"
        return Credentials(name, (Reading(client_id, certificate.encode()),))

    def verify(self, reading, *_):
        """Compare it with the one certificate."""
        return Verdict("certificate") if reading.proof.endswith(b"right") else Verdict()


class Cache(ClientCache):
    """Clients that a test puts in directly."""

    def put(self, client):
        self._clients[client.id] = client


class Door:
    """An authenticator with all three methods."""

    def __init__(self, failures=1_000):
        self.cache, self.clock, self.assertion = Cache(SECRETS), FakeClock(), Assertion()
        shared = SharedSecret(self.cache, SECRETS)
        self.methods = AuthenticationMethods(
            [
                ("authz-server", shared),
                ("plugin one", self.assertion),
                ("plugin two", Certificate()),
            ]
        )
        throttle = FailureThrottle(failures, 60)
        self.authenticator = ClientAuthenticator(self.cache, self.methods, throttle, self.clock)

    def put(self, method, **changed):
        changed = {"id": "payer", "authentication_method": method} | changed
        self.cache.put(msgspec.structs.replace(BASE, **changed))

    def knock(self, form, headers=None):
        """Return id and method, or the reason and the cause for which it is refused."""
        request = AuthenticationRequest(form, headers or {}, ADDRESS)
        try:
            client, method = run(self.authenticator.authenticate(request))
        except OAuthError as refused:
            return refused.reason, refused.cause
        return client.id, method


FAILED = "client_authentication_failed"
#: By name of the method: the form and the headers with a right proof, and with a wrong one.
PRESENTED = {
    "client_secret_post": (
        ({"client_id": "payer", "client_secret": "right"}, {}),
        ({"client_id": "payer", "client_secret": "wrong"}, {}),
    ),
    "example_assertion": (
        ({"client_assertion": "payer/right"}, {}),
        ({"client_assertion": "payer/wrong"}, {}),
    ),
    "example_tls": (
        ({"client_id": "payer"}, {"client-cert": "right"}),
        ({"client_id": "payer"}, {"client-cert": "wrong"}),
    ),
    "example_self_signed": (
        ({"client_id": "payer"}, {"client-cert": "self right"}),
        ({"client_id": "payer"}, {"client-cert": "self wrong"}),
    ),
}
WRONG = {"client_secret_post": "secret_wrong", "example_assertion": "assertion_wrong"}


@pytest.mark.parametrize("method", PRESENTED)
def test_each_method_authenticates_a_client_that_is_registered_for_it(method):
    door = Door()
    door.put(method)
    right, wrong = PRESENTED[method]
    assert door.knock(*right) == ("payer", method)
    assert door.knock(*wrong) == (FAILED, WRONG.get(method, "credentials_wrong"))


@pytest.mark.parametrize("method", PRESENTED)
@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"enabled": False}, "client_disabled"),
        ({"starts_at": float("inf")}, "client_not_yet_valid"),
        ({"expires_at": 1.0}, "client_expired"),
        ({"authentication_method": "other"}, "method_not_registered"),
        ({"id": "somebody-else"}, "client_unknown"),
    ],
)
def test_the_state_of_the_client_is_judged_alike_for_every_method(method, changed, cause):
    door = Door()
    door.put(method, **changed)
    assert door.knock(*PRESENTED[method][0]) == (FAILED, cause)


@pytest.mark.parametrize("method", PRESENTED)
def test_a_client_is_not_authenticated_by_another_method_than_its_own(method):
    for other in PRESENTED.keys() - {method}:
        door = Door()
        door.put(other)
        assert door.knock(*PRESENTED[method][0]) == (FAILED, "method_not_registered")


@pytest.mark.parametrize("method", PRESENTED)
def test_failures_are_throttled_alike_and_the_right_proof_never(method):
    door = Door(failures=1)
    door.put(method)
    right, wrong = PRESENTED[method]
    assert door.knock(*wrong)[0] == FAILED
    assert door.knock(*wrong)[0] == "throttled"
    assert door.knock(*right) == ("payer", method)


def test_an_unknown_client_is_verified_as_a_stand_in():
    door = Door()
    assert door.knock({"client_assertion": "nobody-here/right"}) == (FAILED, "client_unknown")
    assert door.assertion.verified == [STAND_IN.id]


def test_a_check_that_waits_is_told_of_success_and_of_nothing_else():
    door = Door()
    door.put("example_assertion")
    presented = {"client_assertion": "payer/right"}
    assert door.knock(presented) == ("payer", "example_assertion")
    assert door.knock(presented) == (FAILED, "assertion_wrong")
    assert door.assertion.accepted == [(1, "assertion")]
    assert list(door.authenticator.take_last_used()) == ["assertion"]


def test_a_check_that_cannot_be_made_is_throttled_after_failures():
    door = Door(failures=1)
    door.put("example_assertion")
    door.assertion.fault = "temporarily_unavailable"
    presented = {"client_assertion": "payer/right"}
    assert door.knock(presented)[0] == "temporarily_unavailable"
    door.assertion.fault = None
    assert door.knock({"client_assertion": "payer/wrong"})[0] == FAILED
    door.assertion.fault = "temporarily_unavailable"
    assert door.knock(presented) == ("throttled", "throttled")


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ({"client_id": "payer", "client_secret": "x", "client_assertion": "payer/right"}, {}),
        ({"client_assertion": "payer/right"}, {"authorization": "Basic eA=="}),
        ({"client_assertion": "payer/right", "client_id": "payer"}, {"client-cert": "right"}),
        ({"client_id": "payer"}, {"authorization": "Basic cGF5ZXI6eA==", "client-cert": "right"}),
    ],
)
def test_the_credentials_of_two_methods_are_refused(form, headers):
    """Case A5."""
    door = Door()
    door.put("example_assertion")
    assert door.knock(form, headers)[0] == "several_authentication_methods"


def test_a_client_certificate_beside_a_secret_does_not_count():
    door = Door()
    door.put("client_secret")
    form, _ = PRESENTED["client_secret_post"][0]
    assert door.knock(form, {"client-cert": "right"}) == ("payer", "client_secret_post")


@pytest.mark.parametrize("form", [{}, {"client_id": "payer"}, {"client_id": "payer", "scope": "x"}])
def test_a_request_without_credentials_is_not_counted_as_a_failure(form):
    door = Door(failures=1)
    door.put("client_secret")
    for _ in range(3):
        assert door.knock(form) == (FAILED, "credentials_missing")


class TestSharedSecret(ClientAuthenticationMethodContract):
    client = msgspec.structs.replace(BASE, authentication_method="client_secret")

    @pytest.fixture
    def method(self):
        return SharedSecret(ClientCache(SECRETS), SECRETS)

    @pytest.fixture
    def right(self):
        form = {"client_id": self.client.id, "client_secret": "right"}
        return AuthenticationRequest(form, {}, ADDRESS)

    @pytest.fixture
    def wrong(self):
        form = {"client_id": self.client.id, "client_secret": "wrong"}
        return AuthenticationRequest(form, {}, ADDRESS)
