"""Claims that no server of ours writes, under a good signature, and the clocks of others.

At introspection the answer is `{"active": false}` and nothing else, at revocation the 200 that
everybody gets, and no effect.
"""

import json
import os

import pytest

from support.refusing import revoked
from support.stage import ApplicationFixture

DATES = (
    '"1900000000"',
    "true",
    "false",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "1e9",
    "1900000000.0",
    "1900000000.5",
    "1" + "0" * 400,
    "-1" + "0" * 400,
    "1" * 5_000,
    "-1",
    "[]",
    "{}",
    '""',
    "0x7fffffff",
    "01900000000",
)


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
def test_impossible_dates(stage: ApplicationFixture, claims, refuse, claim):
    """Case D46."""
    marked = json.dumps(claims | {claim: "MARK"})
    tokens = {
        f"{claim} {value:.40}": stage.sign(marked.replace('"MARK"', value).encode())
        for value in DATES
    }
    if claim != "nbf":
        tokens |= {"null": stage.sign(marked.replace('"MARK"', "null").encode())}
        tokens |= {"zero": stage.sign(marked.replace('"MARK"', "0").encode())}
    refuse(tokens)


def test_wrong_types_and_hostile_strings(stage: ApplicationFixture, claims, refuse):
    """Case D47."""
    tokens = {
        f"{claim} {value!r:.30}": stage.sign(claims | {claim: value})
        for claim in ("iss", "sub", "client_id", "jti", "scope")
        for value in ([claims[claim]], {"x": claims[claim]}, 1, None, True, [], "")
    }
    tokens |= {
        f"{claim} with {bad!r}": stage.sign(claims | {claim: claims[claim] + bad})
        for claim in ("iss", "sub", "client_id", "jti", "scope")
        for bad in ("\x00", "\ud800", "\n", "\x1b[2J", "\u2028")
    }
    tokens |= {
        "issuer of other case": stage.sign(claims | {"iss": claims["iss"].upper()}),
        "issuer with slash": stage.sign(claims | {"iss": claims["iss"] + "/"}),
        "issuer as prefix": stage.sign(claims | {"iss": claims["iss"] + ".evil.example"}),
        "long jti": stage.sign(claims | {"jti": "j" * 3_000}),
        "aud of numbers": stage.sign(claims | {"aud": [1]}),
        "aud object": stage.sign(claims | {"aud": {"x": 1}}),
        "no object": stage.sign(b"[]"),
        "no JSON": stage.sign(b"token"),
        "deep": stage.sign(b'{"a":' + b"[" * 4_000),
        "deep and closed": stage.sign(
            json.dumps(claims).encode()[:-1] + b',"a":' + b"[" * 2_000 + b"]" * 2_000 + b"}"
        ),
        "not UTF-8": stage.sign(json.dumps(claims).encode()[:-1] + b',"a":"\xff"}'),
        "in UTF-16": stage.sign(json.dumps(claims).encode("utf-16")),
        "byte order mark": stage.sign(b"\xef\xbb\xbf" + json.dumps(claims).encode()),
        "nothing": stage.sign(b"{}"),
        "cnf of text": stage.sign(claims | {"cnf": "x"}),
    }
    refuse(tokens)


def test_skew_that_is_accepted(stage: ApplicationFixture, endpoint, caller, claims):
    """Case D50."""
    now = claims["iat"]
    for changes in ({"iat": now + 8, "exp": now + 908}, {"nbf": now + 8}, {"nbf": now}):
        before = revoked(stage)
        token = stage.sign(stage.claims(**(claims | changes | {"jti": os.urandom(8).hex()})))
        answer = stage.post(endpoint, {"token": token}, caller)
        if endpoint == "introspect":
            assert answer.get_json()["active"] is True, changes
        else:
            assert revoked(stage) == before + 1, changes


def test_skew_that_is_refused(stage: ApplicationFixture, claims, refuse):
    """Case D50."""
    now = claims["iat"]
    changes = {
        "issued in the future": {"iat": now + 11, "exp": now + 900},
        "issued in a minute": {"iat": now + 61, "exp": now + 900},
        "not before": {"nbf": now + 61},
        "expired": {"iat": now - 100, "exp": now},
        "expired beyond the skew": {"iat": now - 900, "exp": now - 11},
        "too long a life": {"exp": now + 3_601},
        "ends before it begins": {"iat": now + 5, "exp": now + 4},
    }
    tokens = {name: stage.sign(claims | change) for name, change in changes.items()}
    for absent in ("exp", "iat", "jti", "iss", "sub", "client_id", "aud", "scope"):
        without = {name: value for name, value in claims.items() if name != absent}
        tokens[f"without {absent}"] = stage.sign(without)
    refuse(tokens)
