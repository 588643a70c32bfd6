"""Tokens of tainted keys are told of, and not too often."""

from types import SimpleNamespace

import pytest

from authz_server.audit.events import TokenOfTaintedKey
from authz_server.audit.notifier import AuditUnavailable
from authz_server.tokens.tainted_keys import TaintedKeyWatch

CLAIMS = SimpleNamespace(client_id="ministry", jti="a-jti", exchanged_from=())
TAINTED = SimpleNamespace(is_tainted=lambda kid: kid.startswith("tainted"))


@pytest.fixture
def told():
    return []


@pytest.fixture
def seconds():
    return [0.0]


@pytest.fixture
def watch(told, seconds):
    return TaintedKeyWatch(TAINTED, told.append, monotonic=lambda: seconds[0])


def test_each_key_is_told_of_once_a_minute(watch, told, seconds):
    for moment in (0, 0, 30, 59.9, 60, 100, 120):
        seconds[0] = moment
        for kid in ("tainted-1", "tainted-2", "sound", ""):
            watch.check(kid, CLAIMS)
    kids = [event.kid for event in told]
    assert kids == ["tainted-1", "tainted-2"] * 3
    assert told[0] == TokenOfTaintedKey(client_id="ministry", jti="a-jti", kid="tainted-1")


def test_a_token_of_a_tainted_key_that_was_exchanged_is_told_of(watch, told):
    origins = [
        SimpleNamespace(client_id="payer", jti=f"of-{kid}", kid=kid) for kid in ("tainted-1", "")
    ]
    claims = SimpleNamespace(client_id="gateway", jti="a-jti", exchanged_from=tuple(origins))
    watch.check("sound", claims)
    assert told == [TokenOfTaintedKey(client_id="payer", jti="of-tainted-1", kid="tainted-1")]


def test_a_record_that_cannot_be_made_stops_no_introspection(caplog):
    def refuse(_event) -> None:
        raise AuditUnavailable("no space")

    TaintedKeyWatch(TAINTED, refuse).check("tainted-1", CLAIMS)
    assert "a token of the tainted key tainted-1 is not recorded" in caplog.text
