"""One connection of a worker: senders that wait to be asked for their body."""

import json

import pytest

from support.framing import SOUND, UPGRADES, length
from support.worker_site import LOOPS, WorkerSite

HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
FORM = b"grant_type=client_credentials&scope=a"


@pytest.fixture(scope="module", params=LOOPS)
def site(request):
    with WorkerSite(request.param, maximum_body_bytes=20_000) as site:
        yield site


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_sender_that_waits_to_be_asked_for_its_body_is_asked(site, framing):
    headers, body = SOUND[framing](FORM)
    with site.connect() as connection:
        connection.send(HEAD + headers + b"Expect: 100-Continue\r\n\r\n")
        assert connection.receive_interim() == 100
        connection.send(body)
        assert json.loads(connection.receive().body)["body"] == FORM.decode()


def test_a_body_is_asked_for_once(site):
    """With a wish for another protocol, as Java's HttpClient sends it, too. Case I100."""
    headers, body = SOUND["length"](FORM)
    with site.connect() as connection:
        for wish in (b"", *UPGRADES.values()):
            connection.send(HEAD + wish + headers + b"Expect: 100-continue\r\n\r\n")
            assert connection.receive_interim() == 100
            connection.send(body)
            assert connection.receive_interim() == 200
            assert json.loads(connection.receive().body)["body"] == FORM.decode()


def test_a_body_is_asked_for_after_the_answers_before_it(site):
    """Case I100."""
    headers, body = SOUND["length"](FORM)
    earlier = HEAD + b"Content-Length: 0\r\n\r\n"
    with site.connect() as connection:
        connection.send(earlier * 3 + HEAD + headers + b"Expect: 100-continue\r\n\r\n")
        for _ in range(3):
            assert connection.receive_interim() == 200
            connection.receive()
        assert connection.receive_interim() == 100
        connection.send(body)
        assert json.loads(connection.receive().body)["body"] == FORM.decode()


def test_nothing_is_asked_for_where_no_body_is_welcome(site):
    """Case I102."""
    large = HEAD + b"Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n"
    for data, status in (
        (large, 413),
        (HEAD + b"Content-Length: 0\r\nExpect: 100-continue\r\n\r\n", 200),
        (HEAD.replace(b"1.1", b"1.0") + length(FORM) + b"Expect: 100-continue\r\n\r\n" + FORM, 200),
    ):
        with site.connect() as connection:
            connection.send(data)
            assert connection.receive_interim() == status
