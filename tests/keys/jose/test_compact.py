"""JSON and base64url as tokens carry them: one spelling, nothing beyond reason."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.errors import TokenRefusedError
from keys.jose.compact import encode_header, encode_segment, parse_compact, parse_json_object


@given(st.binary())
def test_segments_are_base64url_without_padding(data):
    assert encode_segment(data) == base64.urlsafe_b64encode(data).rstrip(b"=")


@given(st.binary(min_size=1, max_size=300), st.binary(min_size=1, max_size=300))
def test_what_is_written_is_read(payload, signature):
    head = encode_header("ES256", "kid", "at+jwt") + encode_segment(payload)
    token = parse_compact((head + b"." + encode_segment(signature)).decode())
    assert token.header == {"alg": "ES256", "kid": "kid", "typ": "at+jwt"}
    assert (token.payload, token.signature) == (payload, signature)
    assert token.signing_input == head


@pytest.mark.parametrize(
    "number",
    [
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e400",
        b"-1e400",
        b"1" + b"0" * 400,
        b"9" * 5000,
        b"-" + b"9" * 30,
        b"01",
        b"+1",
        b"1.",
        b".5",
        b"0x10",
        b"1_000",
    ],
)
def test_impossible_numbers(number):
    """Case D46."""
    with pytest.raises(TokenRefusedError):
        parse_json_object(b'{"exp":' + number + b"}")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"x"',
        b"1",
        b"{",
        b"{}{}",
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":1}}',
        b'{"a":1,"\\u0061":1}',
        b'{"sub":"\xff"}',
        b'{"sub":"\xed\xa0\x80"}',
        b'{"sub":"\\ud800"}',
        b'{"\\udfff":1}',
        b'{"a":["\\ud800\\ud800"]}',
        b'{"sub":"\x00"}',
        b'{"sub":"a\nb"}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b'{"a":' * 101 + b"1" + b"}" * 101,
        b'{"a":' + b"[" * 100 + b"]" * 100 + b"}",
    ],
)
def test_what_is_not_one_sound_object(data):
    """Case D47."""
    with pytest.raises(TokenRefusedError):
        parse_json_object(data)


@given(st.binary())
def test_arbitrary_bytes(data):
    """Case D46, D47."""
    try:
        value = parse_json_object(data)
    except TokenRefusedError:
        return
    assert isinstance(value, dict)


texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.dictionaries(
        texts,
        texts
        | st.integers(-(10**18), 10**18)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.lists(texts),
    ),
    st.booleans(),
)
def test_sound_objects_are_read(value, ensure_ascii):
    data = json.dumps(value, ensure_ascii=ensure_ascii).encode()
    assert parse_json_object(data) == value
