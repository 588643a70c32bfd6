"""Limits of forms, at every endpoint: refused at once, without memory that grows with the input."""

import io
import time
import tracemalloc

import pytest

from support.protocol import ENDPOINTS, FORM_TYPE, METHODS, Protocol, require_refusal

FORMS = {
    "two-megabytes": (413, "a=" + "x" * 2_000_000),
    "one-byte-too-many": (413, "a=" + "x" * 65_535),
    "twenty-thousand-parameters": (413, "&".join(f"a{n}=" for n in range(20_000))),
    "sixty-five-parameters": (400, "&".join(f"a{n}=" for n in range(65))),
    "sixty-thousand-separators": (400, "&" * 60_000),
    "sixty-thousand-equals-signs": (400, "a" + "=" * 60_000),
    "hundred-kilobyte-value": (413, "a=" + "x" * 100_000),
    "nine-kilobyte-value": (400, "a=" + "x" * 8_193),
    "nine-kilobyte-name": (400, "x" * 8_193 + "=a"),
    "escapes": (400, "a=" + "%41" * 20_000),
    "broken-escapes": (400, "a=" + "%4" * 30_000),
    "blanks": (400, "a=" + "+" * 60_000),
    "same-parameter": (400, "a=1&" * 60),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_oversized_forms(protocol: Protocol, endpoint: str, name: str):
    """Case I102."""
    status, form = FORMS[name]
    headers = protocol.demo.basic.headers()
    took = []
    for _ in range(3):
        began = time.thread_time()
        answer = protocol.post(endpoint, form, headers)
        took.append(time.thread_time() - began)
        require_refusal(answer, status, "invalid_request", endpoint)
    assert min(took) < 0.05
    body = form.encode()
    tracemalloc.start()
    try:
        protocol.post(endpoint, body, headers)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_forms_just_inside_the_limits(protocol: Protocol, endpoint: str, method: str):
    """Case I102."""
    caller = protocol.demo.clients[method]
    many = {f"unknown-{number}": "1" for number in range(60)}
    assert protocol.ask(endpoint, caller, **many).status_code == 200
    assert protocol.ask(endpoint, caller, unknown="x" * 8_192).status_code == 200
    padding = {f"p{number}": "x" * 8_000 for number in range(7)}
    assert protocol.ask(endpoint, caller, **padding).status_code == 200


class EndlessBody(io.RawIOBase):
    """A body that never ends, and counts what is read of it."""

    taken = 0

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            raise AssertionError("an unlimited read")
        self.taken += size
        return b"a" * size


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_body_without_a_length_is_read_to_the_limit_only(protocol: Protocol, endpoint: str):
    """Case I102."""
    body = EndlessBody()
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    answer = declared(protocol, endpoint, "", body, **chunked)
    require_refusal(answer, 413, "invalid_request", endpoint)
    assert body.taken <= 65_537


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_chunked_body_of_a_server_that_does_not_end_it_is_refused(
    protocol: Protocol, endpoint: str
):
    body = EndlessBody()
    answer = declared(protocol, endpoint, "", body, HTTP_TRANSFER_ENCODING="chunked")
    require_refusal(answer, 400, "invalid_request", endpoint)
    assert body.taken == 0


@pytest.mark.parametrize(
    "length", ["-1", "+5", "5.0", "0x5", "5 5", "1e3", "\u0665", "five", "5,5"]
)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_length_that_is_no_number(protocol: Protocol, endpoint: str, length: str):
    """Case I102."""
    answer = declared(protocol, endpoint, length)
    require_refusal(answer, 400, "invalid_request", endpoint)


@pytest.mark.parametrize("length", ["65537", "9" * 19, "9" * 5_000])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_length_beyond_the_limit_is_refused_unread(protocol: Protocol, endpoint: str, length: str):
    """Case I102."""
    body = EndlessBody()
    answer = declared(protocol, endpoint, length, body)
    require_refusal(answer, 413, "invalid_request", endpoint)
    assert body.taken == 0


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_body_shorter_than_announced(protocol: Protocol, endpoint: str):
    """Case I102."""
    answer = declared(protocol, endpoint, "500", io.BytesIO(b"a=1"))
    require_refusal(answer, 400, "invalid_request", endpoint)


def declared(
    protocol: Protocol, endpoint: str, length: str, body: io.IOBase | None = None, **environ: object
):
    """Post a body that is announced with this length."""
    environ |= {"CONTENT_LENGTH": length, "CONTENT_TYPE": FORM_TYPE}
    return protocol.send(
        "POST",
        ENDPOINTS[endpoint],
        headers=protocol.profile_headers(endpoint),
        environ_overrides={"wsgi.input": body or io.BytesIO(b"a=1&b"), **environ},
    )


def test_limits_are_settings(start_protocol):
    """Case I102."""
    limits = {"maximum_body_bytes": 1_024, "maximum_value_bytes": 300, "maximum_parameters": 8}
    protocol = start_protocol(server=limits)
    caller = protocol.demo.basic
    for endpoint in ENDPOINTS:
        assert protocol.ask(endpoint, caller, a="x" * 300).status_code == 200
        assert protocol.ask(endpoint, caller, a="x" * 301).status_code == 400
        assert (
            protocol.ask(endpoint, caller, a="x" * 300, b="x" * 300, c="x" * 300).status_code == 200
        )
        big = dict.fromkeys("abcd", "x" * 300)
        assert protocol.ask(endpoint, caller, **big).status_code == 413
        assert protocol.ask(endpoint, caller, **{f"a{n}": "1" for n in range(8)}).status_code == 400
