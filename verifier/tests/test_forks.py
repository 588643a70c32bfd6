"""Verifiers and pollers in processes that are forked after they began, as by gunicorn --preload."""

import os
import threading
import time

import pytest

from authz_verifier import EventPoller, Refusal, Request, Verifier
from authz_verifier.testing import DEFAULT_AUDIENCE

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def run_in_child(function) -> int:
    """Return the exit status of a forked process: 0 if the function returns True there."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if function() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_after_fork_of_uwsgi(verifier, function) -> int:
    """Return 0 if the function returns True where the verifier seems to be of another process.

    uWSGI forks without the hooks of `os.register_at_fork`. A test that does so inherits locks of
    the interpreter and its libraries from the threads of all other tests.
    """
    verifier._process_id = 0  # noqa: SLF001 - the number of no process
    return 0 if function() else 1


@pytest.fixture(params=["python", "as in uWSGI"])
def run_forked(request):
    """A function of a verifier and a function: the exit status of the function in a child."""
    if request.param == "python":
        return lambda _verifier, function: run_in_child(function)
    return run_after_fork_of_uwsgi


def test_a_process_that_is_forked_during_a_fetch_fetches_itself(issuer, present, run_forked):
    fetched, forked = threading.Event(), threading.Event()
    document = issuer.document

    def wait_for_the_fork(path):
        if path == "/jwks" and not fetched.is_set():
            fetched.set()
            forked.wait(60)
        return document(path)

    issuer.document = wait_for_the_fork
    request = present(issuer.token())
    with Verifier(issuer.url, DEFAULT_AUDIENCE, timeout_seconds=60) as verifier:
        waiting = threading.Thread(target=verifier.authenticate, args=(request,))
        waiting.start()
        assert fetched.wait(60)
        began = time.monotonic()
        assert run_forked(verifier, lambda: verifier.authenticate(request)) == 0
        assert time.monotonic() - began < 60
        forked.set()
        waiting.join()


def test_a_lock_that_a_thread_held_at_the_fork_is_free(issuer, present, run_forked):
    settings = {"client_id": "mapper", "client_secret": "secret", "mode": "introspection"}
    request = present(issuer.token())
    with Verifier(issuer.url, DEFAULT_AUDIENCE, **settings) as verifier:
        verifier.authenticate(request)
        locks = [
            part._lock  # noqa: SLF001 - a thread holds it too shortly to be met from outside
            for part in (verifier._keys, verifier._introspection, verifier._counters)  # noqa: SLF001
        ]
        for lock in locks:
            lock.acquire()
        try:
            assert run_forked(verifier, lambda: verifier.authenticate(request)) == 0
        finally:
            for lock in locks:
                lock.release()


def test_a_poller_polls_in_a_forked_process_too(issuer):
    settings = {"client_id": "mapper", "client_secret": "secret"}

    def wait_for_an_event() -> bool:
        with pytest.raises(Refusal):
            verifier.authenticate(Request("GET", DEFAULT_AUDIENCE))
        until = time.monotonic() + 60
        while not verifier.events.received and time.monotonic() < until:
            time.sleep(0.02)
        return bool(verifier.events.received)

    with Verifier(issuer.url, DEFAULT_AUDIENCE, **settings) as verifier, EventPoller(verifier):
        child = threading.Timer(0.2, lambda: issuer.announce(issuer.event()))
        child.start()
        assert run_in_child(wait_for_an_event) == 0
        child.join()
