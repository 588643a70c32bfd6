"""Patterns of subjects, claims that are required, and the index of clients."""

import pytest

from authz_server.clients.properties import check_properties
from authz_server.clients.workload_identities import (
    MAXIMUM_IDENTITIES,
    WorkloadIdentity,
    WorkloadIndex,
    matches,
    require_pattern,
)
from authz_server.errors import InvalidChangeError

AUDIENCE = "https://authz.example"


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        ("a:b", ["a:b"], ["a:b:c", "A:b", "a:b ", "a"]),
        ("a:*", ["a:b", "a:b.c"], ["a:", "a:b:c", "a:b/c", "b:a", "xa:b"]),
        ("a:*:c", ["a:b:c"], ["a:b:d", "a:b:b:c", "a::c", "a:b:c:d"]),
        ("a/**", ["a/b", "a/b/c:d"], ["a/", "a", "b/a/b"]),
        ("a.b:*", ["a.b:c"], ["axb:c"]),
        ("spiffe://td/ns/*/sa/**", ["spiffe://td/ns/x/sa/y/z"], ["spiffe://td.x/ns/x/sa/y"]),
        ("repo:o/*:ref:*", ["repo:o/r:ref:main"], ["repo:o/r:ref:refs/heads/main"]),
    ],
)
def test_a_wildcard_stands_for_whole_segments(pattern, fitting, other):
    assert require_pattern("field", pattern) == pattern
    for text in fitting:
        assert matches(pattern, text), text
    for text in other:
        assert not matches(pattern, text), text


@pytest.mark.parametrize(
    "pattern",
    ["*", "**", "*:a", "**/a", "a*:b", "a:b*", "a:*b", "a:***", "a/**/b", "spiffe://*/a",
     "spiffe://**", "spiffe:*", "a:\n", "a:\u202e"],
)  # fmt: skip
def test_other_patterns_are_refused(pattern):
    with pytest.raises(InvalidChangeError):
        require_pattern("field", pattern)


@pytest.mark.parametrize(
    "value",
    [
        "text",
        {"issuer": "i", "subject": "s"},
        [{"issuer": "i"}],
        [{"subject": "s"}],
        [{"issuer": "i", "subject": ""}],
        [{"issuer": "", "subject": "s"}],
        [{"issuer": "i", "subject": "*"}],
        [{"issuer": "i", "subject": "s", "unknown": 1}],
        [{"issuer": "i", "subject": "s", "claims": []}],
        [{"issuer": "i", "subject": "s" * 513}],
        [{"issuer": "i", "subject": "s"}] * (MAXIMUM_IDENTITIES + 1),
    ],
)
@pytest.mark.parametrize("name", ["workload_identities", "jwt_bearer_subjects"])
def test_a_property_of_another_form_is_refused(name, value):
    with pytest.raises(InvalidChangeError, match=name):
        check_properties({name: value})


@pytest.mark.parametrize(
    ("required", "claims", "fits"),
    [
        ({}, {}, True),
        ({"a": "b"}, {"a": "b", "c": 1}, True),
        ({"a": "b"}, {"a": ["b"]}, False),
        ({"a": "b"}, {}, False),
        ({"a": "b:*"}, {"a": "b:c"}, True),
        ({"a": ["b", "c"]}, {"a": "c"}, True),
        ({"a": ["b", "c"]}, {"a": "d"}, False),
        ({"a": []}, {"a": "d"}, False),
        ({"a": {"b": {"c": "d"}}}, {"a": {"b": {"c": "d", "e": 1}}}, True),
        ({"a": {"b": "c"}}, {"a": "c"}, False),
        ({"a": {}}, {"a": "c"}, False),
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": None}, {"a": None}, True),
        ({"a": None}, {}, False),
    ],
)
def test_required_claims_have_their_values_and_types(required, claims, fits):
    identity = WorkloadIdentity(issuer="i", subject="s", claims=required)
    assert identity.fits({"sub": "s", "aud": AUDIENCE} | claims, AUDIENCE) is fits


def test_an_audience_of_the_identity_replaces_the_usual_one():
    identity = WorkloadIdentity(issuer="i", subject="s", audience="own")
    for audience, fits in (
        ("own", True),
        (["own"], True),
        (AUDIENCE, False),
        (["own", "x"], False),
    ):
        assert identity.fits({"sub": "s", "aud": audience}, AUDIENCE) is fits


def test_the_index_follows_changes():
    index = WorkloadIndex()
    exact = WorkloadIdentity(issuer="i", subject="a:b")
    pattern = WorkloadIdentity(issuer="https://i.example", subject="a:*")
    other = WorkloadIdentity(issuer="other", subject="a:b")
    claims = {"sub": "a:b", "aud": AUDIENCE}

    def found() -> list[str]:
        return list(index.find(("i", "https://i.example"), claims, AUDIENCE))

    index.replace("one", (exact,))
    index.replace("two", (pattern, other))
    index.replace("three", (other,))
    assert found() == ["one", "two"]
    index.replace("one", (other,))
    assert found() == ["two"]
    index.replace("two", ())
    assert found() == []
