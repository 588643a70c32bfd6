"""No signature to be had: each token endpoint, each way to authenticate, each database."""

from collections.abc import Sequence

import pytest

from keys.errors import (
    BackendBroken,
    BackendDenied,
    BackendUnavailable,
    VersionUnusable,
)
from support.stage import INACTIVE, METHODS, ApplicationFixture

pytestmark = pytest.mark.usefixtures("alone")

RETRY_AFTER_SECONDS = 7
#: By what is wrong: the error, and the seconds after which to try again (None: the server's own).
FAULTS = {
    "away": (BackendUnavailable("away", RETRY_AFTER_SECONDS), str(RETRY_AFTER_SECONDS)),
    "denied": (BackendDenied("denied"), None),
    "fenced": (VersionUnusable("fenced"), None),
    "broken": (BackendBroken("another key signed"), None),
}


class Refusing:
    """The backend of the rings, which signs nothing; what it holds is as before."""

    def __init__(self, backend, error: Exception) -> None:
        self._backend, self._error = backend, error

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def sign(self, _ring: str, _ref: str, _alg: str, _inputs: Sequence[bytes]) -> list[bytes]:
        raise self._error


@pytest.fixture(params=FAULTS)
def fault(request, stage: ApplicationFixture):
    """What is wrong while a test runs, and afterwards is not."""
    error, retry_after = FAULTS[request.param]
    backends = stage.services.key_rings._backends  # noqa: SLF001 - no other way to break them
    whole = dict(backends)
    for uri, backend in whole.items():
        backends[uri] = Refusing(backend, error)
    yield retry_after
    backends.update(whole)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ["token", "g2p"])
def test_no_token_without_a_signature(stage: ApplicationFixture, fault, endpoint, method):
    """Case G79."""
    form = {"grant_type": "client_credentials", "scope": f"{method}-jwt/read"}
    answer = stage.post(endpoint, form, stage.callers[f"client-{method}"])
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert fault is None or answer.headers["Retry-After"] == fault
    assert "access_token" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.get_json()["error"] in {"temporarily_unavailable", "server_error"}
    assert stage.records()[-1]["event"] == "token.refused"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ["token", "g2p"])
def test_a_reference_token_needs_no_signature(stage: ApplicationFixture, fault, endpoint, method):
    """Case G79."""
    del fault
    form = {"grant_type": "client_credentials", "scope": f"{method}-reference/read"}
    answer = stage.post(endpoint, form, stage.callers[f"client-{method}"])
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("method", METHODS)
def test_what_needs_no_signature_goes_on(stage: ApplicationFixture, method):
    """Case G79."""
    caller = stage.callers[f"client-{method}"]
    token = stage.token(f"{method}-jwt/read", caller)
    ended = stage.token(f"{method}-jwt/read", caller)
    jwks = stage.client.get("/.well-known/jwks.json").data
    backends = stage.services.key_rings._backends  # noqa: SLF001 - no other way to break them
    whole = dict(backends)
    try:
        for uri, backend in whole.items():
            backends[uri] = Refusing(backend, FAULTS["away"][0])
        stage.revoke(ended, caller)
        assert stage.introspect(token, f"{method}-jwt")["active"] is True
        assert stage.introspect(ended, f"{method}-jwt") == INACTIVE
        assert stage.client.get("/.well-known/jwks.json").data == jwks
    finally:
        backends.update(whole)
