"""The G2P Connect profile at `/oauth2/client/token`, and how the plain endpoint differs."""

import json
from datetime import timedelta
from email.utils import format_datetime

import pytest

from authz_server.settings import SettingsError
from support.claims import claims_of
from support.protocol import METHODS, TOKEN_ENDPOINTS, Protocol, basic, require_refusal


def ask(protocol: Protocol, endpoint: str = "g2p", address: str = "127.0.0.1", **headers: str):
    """Ask for a token with these headers, `_` in their names as it is."""
    form = protocol.form(endpoint) | protocol.demo.post.form()
    return protocol.post(endpoint, form, headers, environ_base={"REMOTE_ADDR": address})


@pytest.mark.parametrize("method", METHODS)
def test_answer_of_the_interface(protocol: Protocol, method: str):
    """Case B28."""
    answer = protocol.ask("g2p", protocol.demo.clients[method])
    assert answer.status_code == 200
    assert answer.json["token_type"] == "bearer"
    assert answer.json["expires_in"] == "900"
    assert answer.json["scope"] == "mapper/link"
    assert "refresh_token" not in answer.json
    assert "errors" not in answer.json
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Content-Language" not in answer.headers


def test_interface_as_its_document_prints_it(protocol: Protocol):
    """Case B28."""
    body = {"grant_type": "client_credentials", **protocol.demo.post.form()}
    stamp = format_datetime(protocol.clock(), usegmt=True)
    headers = {"timestamp": stamp, "message_id": "123456789020211216223812"}
    answer = protocol.post("g2p", body, headers | {"accept-language": "en"})
    assert answer.status_code == 200
    assert answer.headers["message_id"] == "123456789020211216223812"


@pytest.mark.parametrize(
    ("choice", "endpoint", "expected"),
    [
        ("string", "g2p", "900"),
        ("number", "g2p", 900),
        ("string", "token", 900),
        ("number", "token", 900),
    ],
)
def test_type_of_expires_in_is_a_setting(start_protocol, choice: str, endpoint: str, expected):
    """Case B28."""
    protocol = start_protocol(g2p={"expires_in": choice})
    answer = protocol.ask(endpoint, protocol.demo.post)
    assert answer.json["expires_in"] == expected
    assert type(answer.json["expires_in"]) is type(expected)


def test_token_type_is_a_setting(start_protocol):
    """Case B28."""
    protocol = start_protocol(g2p={"token_type": "BearerToken"})
    assert protocol.ask("g2p", protocol.demo.post).json["token_type"] == "BearerToken"
    assert protocol.ask("token", protocol.demo.post).json["token_type"] == "Bearer"


DATES = {
    "preferred": "%a, %d %b %Y %H:%M:%S GMT",
    "rfc-850": "%A, %d-%b-%y %H:%M:%S GMT",
    "asctime": "%a %b %e %H:%M:%S %Y",
}


@pytest.mark.parametrize("form", DATES)
def test_every_form_of_an_http_date(protocol: Protocol, form: str):
    assert ask(protocol, timestamp=protocol.clock().strftime(DATES[form])).status_code == 200
    old = (protocol.clock() - timedelta(days=1)).strftime(DATES[form])
    answer = ask(protocol, timestamp=old)
    require_refusal(answer, 400, "invalid_request", "g2p")
    assert "too far" in answer.json["error_description"]


def test_asctime_pads_the_day_with_a_blank(start_protocol):
    protocol = start_protocol()
    while protocol.clock().day != 9:
        protocol.clock.advance(86_400)
    assert "  9 " in (text := protocol.clock().strftime(DATES["asctime"]))
    assert ask(protocol, timestamp=text).status_code == 200


NO_DATES = {
    "words": "now",
    "seconds": "1795461000",
    "iso-8601": "2026-11-23T19:12:53Z",
    "other-zone": "Mon, 23 Nov 2026 19:12:53 CET",
    "offset": "Mon, 23 Nov 2026 19:12:53 +0000",
    "no-zone": "Mon, 23 Nov 2026 19:12:53",
    "no-weekday": "23 Nov 2026 19:12:53 GMT",
    "lower-case": "mon, 23 nov 2026 19:12:53 gmt",
    "other-language": "Lun, 23 Nou 2026 19:12:53 GMT",
    "february-31": "Tue, 31 Feb 2026 19:12:53 GMT",
    "hour-25": "Mon, 23 Nov 2026 25:12:53 GMT",
    "minute-60": "Mon, 23 Nov 2026 19:60:53 GMT",
    "day-zero": "Mon, 00 Nov 2026 19:12:53 GMT",
    "five-digit-year": "Mon, 23 Nov 20266 19:12:53 GMT",
    "followed-by-more": "Mon, 23 Nov 2026 19:12:53 GMT, x",
    "in-quotes": '"Mon, 23 Nov 2026 19:12:53 GMT"',
    "fraction": "Mon, 23 Nov 2026 19:12:53.5 GMT",
    "month-thirteen": "Mon, 23 Xxx 2026 19:12:53 GMT",
    "long": "Mon, 23 Nov 2026 19:12:53 GMT" + " " * 8_000,
    "odd-digits": "Mon, 2\u00b3 Nov 2026 19:12:53 GMT",
    "line-noise": "\x80\xff\xfe",
}


@pytest.mark.parametrize("name", NO_DATES)
def test_timestamp_that_is_no_http_date(protocol: Protocol, name: str):
    answer = ask(protocol, timestamp=NO_DATES[name])
    require_refusal(answer, 400, "invalid_request", "g2p")
    assert "not an HTTP date" in answer.json["error_description"]
    assert ask(protocol, "token", timestamp=NO_DATES[name]).status_code == 200


def test_weekday_is_not_compared(protocol: Protocol):
    # The interface's own example names a wrong one.
    right = format_datetime(protocol.clock(), usegmt=True)
    wrong = ("Sun" if right[:3] == "Mon" else "Mon") + right[3:]
    assert ask(protocol, timestamp=wrong).status_code == 200
    interface_example = "Tue, 06 Mar 2020 21:00:00 GMT"
    answer = ask(protocol, timestamp=interface_example)
    assert "too far" in answer.json["error_description"]


def test_timestamp_is_required_where_settings_say_so(start_protocol):
    protocol = start_protocol(g2p={"timestamp_required": True})
    answer = ask(protocol, timestamp="")
    require_refusal(answer, 400, "invalid_request", "g2p")
    assert "required" in answer.json["error_description"]
    assert ask(protocol, "token").status_code == 200


def test_timestamp_is_optional_and_checked_when_it_is_sent(protocol: Protocol):
    assert ask(protocol, timestamp="").status_code == 200
    require_refusal(ask(protocol, timestamp="x"), 400, "invalid_request", "g2p")
    old = format_datetime(protocol.clock() - timedelta(seconds=301), usegmt=True)
    require_refusal(ask(protocol, timestamp=old), 400, "invalid_request", "g2p")


@pytest.mark.parametrize("window", [300, 5])
@pytest.mark.parametrize("direction", [1, -1])
def test_timestamp_window(start_protocol, window: int, direction: int):
    protocol = start_protocol(g2p={"timestamp_window_seconds": window})

    def status(seconds: int) -> int:
        at = protocol.clock() + timedelta(seconds=direction * seconds)
        return ask(protocol, timestamp=format_datetime(at, usegmt=True)).status_code

    assert (status(0), status(window - 1), status(window)) == (200, 200, 200)
    assert (status(window + 1), status(10 * window)) == (400, 400)


MESSAGE_IDS = ("1", "123456789020211216223812", "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6")
MESSAGE_IDS += ("a" * 128, "A.b_c:d@e/f+g=h~i-j")
BAD_MESSAGE_IDS = (
    "a" * 129,
    "a" * 8_000,
    "a b",
    "a\tb",
    "a\x00b",
    "a;b",
    "a,b",
    '"a"',
    "a\\b",
    "<a>",
)
BAD_MESSAGE_IDS += ("\xe9", "{a}", "%41", "a\x7f", "\x1b[31m", "$(a)", "a\u0085b")


def test_message_id_is_echoed_and_recorded(protocol: Protocol):
    """Case K124."""
    for number, message_id in enumerate(MESSAGE_IDS):
        answer = ask(protocol, message_id=message_id)
        assert answer.headers["message_id"] == message_id
        record = json.loads(protocol.audit_trail().splitlines()[-1])
        assert (record["event"], record["message_id"]) == ("token.issued", message_id)
        assert record["jti"] == claims_of(answer.json["access_token"])["jti"]
        # Refusals that repeat from one address are recorded together, without their message_id.
        address = f"192.0.2.{number}"
        refused = ask(protocol, address=address, message_id=message_id, timestamp="x")
        assert refused.status_code == 400
        assert refused.headers["message_id"] == message_id
        record = json.loads(protocol.audit_trail().splitlines()[-1])
        assert (record["event"], record["message_id"]) == ("token.refused", message_id)
        assert record["request_id"] == refused.headers["X-Request-Id"]


def test_message_id_that_is_not_allowed(protocol: Protocol):
    for message_id in BAD_MESSAGE_IDS:
        answer = ask(protocol, message_id=message_id)
        require_refusal(answer, 400, "invalid_request", "g2p")
        assert "message_id" not in answer.headers
        assert "message_id" in answer.json["error_description"]
        record = json.loads(protocol.audit_trail().splitlines()[-1])
        assert "message_id" not in record or not record["message_id"]
    assert "message_id" not in ask(protocol).headers
    assert "message_id" not in ask(protocol, message_id="").headers


def test_plain_endpoint_ignores_the_message_id(protocol: Protocol):
    for message_id in (*MESSAGE_IDS, *BAD_MESSAGE_IDS):
        answer = ask(protocol, "token", message_id=message_id)
        assert answer.status_code == 200
        assert "message_id" not in answer.headers


def test_length_of_the_message_id_is_a_setting(start_protocol):
    protocol = start_protocol(g2p={"maximum_message_id_bytes": 8})
    assert ask(protocol, message_id="a" * 8).status_code == 200
    require_refusal(ask(protocol, message_id="a" * 9), 400, "invalid_request", "g2p")


def test_errors_come_in_one_object(protocol: Protocol):
    """Case B28."""
    caller = protocol.demo.post
    form = protocol.form("g2p") | caller.form()
    for status, error, answer in (
        (401, "invalid_client", protocol.ask("g2p", caller, client_secret="wrong")),
        (400, "invalid_scope", protocol.ask("g2p", caller, scope="no/such")),
        (400, "invalid_target", protocol.ask("g2p", caller, resource="no")),
        (400, "unsupported_grant_type", protocol.ask("g2p", caller, grant_type="password")),
        (400, "invalid_request", protocol.ask("g2p", caller, without="grant_type")),
        (400, "invalid_request", protocol.post("g2p", form, {"timestamp": "x"})),
        (413, "invalid_request", protocol.post("g2p", "a" * 70_000)),
        (415, "invalid_request", protocol.post("g2p", form, {"Content-Type": "text/plain"})),
    ):
        require_refusal(answer, status, error, "g2p")
        (only,) = answer.json["errors"]
        assert only == {"code": error, "message": answer.json["error_description"]}
        assert answer.headers["Content-Language"] == "en"
    assert "errors" not in protocol.ask("token", caller, scope="no/such").json


def test_challenge_is_sent_here_too(protocol: Protocol):
    """Case A3."""
    headers = {"Authorization": basic("client-basic:wrong")}
    answer = protocol.post("g2p", protocol.form("g2p"), headers)
    require_refusal(answer, 401, "invalid_client", "g2p")
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


def test_profile_switched_off(start_protocol):
    """Case L135."""
    protocol = start_protocol(g2p={"enabled": False})
    answer = ask(protocol)
    require_refusal(answer, 404, "invalid_request")
    assert ask(protocol, "token").status_code == 200


def test_both_paths_issue_the_same_token(protocol: Protocol):
    """Case C30."""
    tokens = [
        claims_of(protocol.ask(endpoint, protocol.demo.post).json["access_token"])
        for endpoint in TOKEN_ENDPOINTS
    ]
    for claims in tokens:
        del claims["jti"]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("expires_in", "text"),
        ("expires_in", 900),
        ("token_type", ""),
        ("token_type", "a b"),
        ("token_type", "a\r\nb: c"),
        ("timestamp_window_seconds", 0),
        ("timestamp_window_seconds", 86_401),
        ("maximum_message_id_bytes", 0),
        ("timestamp_required", "yes"),
        ("default_language", "english!"),
        ("catalogue_directory", "no-such-folder"),
    ],
)
def test_settings_that_the_profile_cannot_have(make_settings, key: str, value):
    """Case L129."""
    with pytest.raises(SettingsError, match=rf"g2p\.{key}"):
        make_settings(g2p={key: value})
