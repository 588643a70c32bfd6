"""The fields by which a sender states its preferences."""

import time

import pytest

from authz_server.endpoints.preferences import read_qualities
from authz_server.endpoints.status_lists import _prefers_gzip


@pytest.mark.parametrize(
    ("field", "qualities"),
    [
        ("", {"": 1.0}),
        ("gzip", {"gzip": 1.0}),
        ("GZip;Q=0.5 , *;q=0", {"gzip": 0.5, "*": 0.0}),
        ("b;q=0.1, a, c;q=1.000;", {"b": 0.1, "a": 1.0, "c": 1.0}),
        ("a\t;\tq=0.25", {"a": 0.25}),
        ("a;q=0.5, a;q=0", {"a": 0.5}),
        ("a;v=1, b;v=1;q=0.5, c;q=0.5;v=1", {}),
        ("a;q=, b;q, c;q=2, d;q=-1, e;q=nan, f;q=1e-3, g;q=0.1234, h;q=1.001", {}),
        ('a;q="0.5", b;q=\N{ARABIC-INDIC DIGIT ONE}, c;q=0.\N{ARABIC-INDIC DIGIT ONE}', {}),
    ],
)
def test_each_range_has_its_quality(field, qualities):
    """RFC 9110, 12.4.2."""
    assert read_qualities(field) == qualities


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("gzip", True),
        ("br, gzip;q=0.1", True),
        ("*", True),
        ("*;q=0.5, gzip;q=0.6", True),
        ("identity, gzip", True),
        ("", False),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("identity, gzip;q=0.9", False),
        ("identity;q=0.5, *;q=0.1", False),
        ("br", False),
    ],
)
def test_gzip_is_sent_to_who_takes_it(field, expected):
    assert _prefers_gzip(field) is expected


@pytest.mark.parametrize("filler", [" ", "\t", ",", ";", ";q", '"', "\\", ",\\", "/", "; ", "a;b,"])
def test_no_field_takes_long(filler):
    """A parser of media types with a quadratic expression takes seconds for it."""
    field = "application/json" + filler * (60_000 // len(filler)) + "x"
    began = time.thread_time()
    read_qualities(field)
    assert time.thread_time() - began < 0.5
