"""Rich authorization requests on client credentials (RFC 9396)."""

import json
from datetime import timedelta

import pytest

from support.claims import claims_of
from support.parties import ACTOR, RESOURCE_SERVERS
from support.protocol import METHODS, TOKEN_ENDPOINTS, Protocol, require_refusal

DISBURSE = RESOURCE_SERVERS["disburse"]
TYPE = "g2p_disbursement"
SCOPE = "disburse/disburse"
ERROR = "invalid_authorization_details"
GRANT = {
    "programmes": ["cash-2026", "school-meals"],
    "currency_code": "KES",
    "payer_fas": ["account:1@national-bank"],
    "payment_cap": "5000.00",
    "batch_cap": "100000.00",
    "count": 500,
}
DETAIL = {"type": TYPE, "programme": "cash-2026", "currency_code": "KES"}
GRANTED = DETAIL | {
    "payer_fa": "account:1@national-bank",
    "payment_cap": "5000.00",
    "batch_cap": "100000.00",
    "count": 500,
}


def new_payer(protocol: Protocol, method: str = "client_secret_post", **properties):
    """Make a client for disbursements within GRANT."""
    granted = {"authorization_details_grants": {TYPE: [GRANT]}}
    return protocol.new_client(
        method,
        allowed_scopes=[SCOPE, "disburse/search", "mapper/link"],
        default_scopes=["mapper/link"],
        properties=granted | properties,
    )


def ask(protocol: Protocol, endpoint: str, client, details, **fields):
    text = details if isinstance(details, str) else json.dumps(details)
    return protocol.ask(endpoint, client, authorization_details=text, **{"scope": ""} | fields)


@pytest.fixture(scope="module")
def payer(protocol: Protocol):
    """A client for disbursements, shared where a test does not change it."""
    return new_payer(protocol)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_granted_details_are_in_answer_token_and_introspection(
    protocol: Protocol, endpoint: str, method: str
):
    client = new_payer(protocol, method)
    asked = DETAIL | {"payment_cap": "100.5", "count": 20}
    answer = ask(protocol, endpoint, client, [asked])
    expected = [GRANTED | {"payment_cap": "100.50", "count": 20}]
    assert answer.json["authorization_details"] == expected
    # Without `scope`, the token has the scopes that the type limits, and no default scope.
    assert answer.json["scope"] == SCOPE
    token = answer.json["access_token"]
    claims = claims_of(token)
    assert (claims["authorization_details"], claims["aud"]) == (expected, DISBURSE)
    for caller in (protocol.demo.disburse, client):
        seen = protocol.ask("introspect", caller, token=token).json
        assert (seen["active"], seen["authorization_details"]) == (True, expected)
    issued = [line for line in protocol.audit_trail().splitlines() if claims["jti"] in line]
    assert json.loads(issued[0])["authorization_details"] == expected


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_scope_and_details_combine(protocol: Protocol, endpoint: str, payer):
    answer = ask(protocol, endpoint, payer, [DETAIL], scope=f"{SCOPE} disburse/search")
    assert answer.json["scope"] == f"{SCOPE} disburse/search"
    assert answer.json["authorization_details"] == [GRANTED]
    # Details are of no use to a token for another resource server.
    require_refusal(
        ask(protocol, endpoint, payer, [DETAIL], scope="mapper/link"), 400, ERROR, endpoint
    )
    answer = ask(protocol, endpoint, payer, [DETAIL], resource=RESOURCE_SERVERS["mapper"])
    require_refusal(answer, 400, "invalid_scope", endpoint)
    answer = ask(protocol, endpoint, payer, [DETAIL], resource=f"{DISBURSE}/")
    assert claims_of(answer.json["access_token"])["aud"] == DISBURSE


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_several_details_and_their_locations(protocol: Protocol, endpoint: str, payer):
    details = [DETAIL | {"locations": [DISBURSE]}, DETAIL | {"programme": "school-meals"}]
    answer = ask(protocol, endpoint, payer, details)
    assert [each["programme"] for each in answer.json["authorization_details"]] == [
        "cash-2026",
        "school-meals",
    ]
    assert answer.json["authorization_details"][0]["locations"] == [DISBURSE]
    for locations in ([RESOURCE_SERVERS["mapper"]], ["https://unknown.example"], [], "x", [1], {}):
        answer = ask(protocol, endpoint, payer, [DETAIL | {"locations": locations}])
        require_refusal(answer, 400, ERROR, endpoint)


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_blanks_of_json(protocol: Protocol, endpoint: str, payer):
    for text in (json.dumps([DETAIL], indent="\t"), json.dumps([DETAIL], indent=1) + "\r\n"):
        assert ask(protocol, endpoint, payer, text).json["authorization_details"] == [GRANTED]
    for text in (json.dumps([DETAIL]).replace("cash", "\n"), f"\x0b{json.dumps([DETAIL])}"):
        assert ask(protocol, endpoint, payer, text).status_code == 400


BEYOND = {
    "another programme": {"programme": "pensions"},
    "a programme in other letters": {"programme": "CASH-2026"},
    "another currency": {"currency_code": "UGX"},
    "another payer": {"payer_fa": "account:2@national-bank"},
    "a higher payment": {"payment_cap": "5000.01"},
    "a higher batch": {"batch_cap": "100000.01"},
    "more payments": {"count": 501},
}
MALFORMED = {
    "unknown member": {"beneficiary": "x"},
    "no such currency": {"currency_code": "XXX"},
    "currency in small letters": {"currency_code": "kes"},
    "amount as integer": {"payment_cap": 100},
    "amount as float": {"payment_cap": 100.0},
    "amount with exponent": {"payment_cap": "1e2"},
    "amount with sign": {"payment_cap": "+1"},
    "negative amount": {"payment_cap": "-1"},
    "amount of nothing": {"payment_cap": "0.00"},
    "amount with blank": {"payment_cap": " 1"},
    "amount with line feed": {"payment_cap": "1\n"},
    "amount with comma": {"payment_cap": "1,5"},
    "amount in other digits": {"payment_cap": "\u0661"},
    "amount not a number": {"payment_cap": "NaN"},
    "amount with three decimals": {"payment_cap": "1.005"},
    "amount with leading zero": {"payment_cap": "01"},
    "huge amount": {"payment_cap": "9" * 14},
    "payment above batch": {"payment_cap": "10.00", "batch_cap": "9.99"},
    "count as text": {"count": "5"},
    "count as float": {"count": 5.0},
    "count as boolean": {"count": True},
    "count of zero": {"count": 0},
    "negative count": {"count": -1},
    "null": {"count": None},
    "programme as list": {"programme": ["cash-2026"]},
    "empty programme": {"programme": ""},
    "payer as object": {"payer_fa": {}},
    "time as number": {"not_before": 1},
    "time without zone": {"not_before": "2030-01-01T00:00:00"},
    "no such day": {"not_before": "2030-02-30T00:00:00Z"},
    "no such zone": {"not_before": "2030-02-01T00:00:00+99:00"},
    "window upside down": {
        "not_before": "2090-01-02T00:00:00Z",
        "not_after": "2090-01-01T00:00:00Z",
    },
    "type as list": {"type": [TYPE]},
    "unknown type": {"type": "payment_initiation"},
    "type in other letters": {"type": TYPE.upper()},
    "empty type": {"type": ""},
}


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_details_beyond_the_grant_and_malformed_ones(protocol: Protocol, endpoint: str, payer):
    for changed in (*BEYOND.values(), *MALFORMED.values()):
        for details in ([DETAIL | changed], [DETAIL, DETAIL | changed]):
            require_refusal(ask(protocol, endpoint, payer, details), 400, ERROR, endpoint)
    for missing in ("type", "programme", "currency_code"):
        detail = {name: value for name, value in DETAIL.items() if name != missing}
        require_refusal(ask(protocol, endpoint, payer, [detail]), 400, ERROR, endpoint)


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_an_unknown_type_is_named_as_the_reason(protocol: Protocol, endpoint: str, payer):
    """RFC 9396, 5: with and without a scope that needs details of another type."""
    for scope in (SCOPE, ""):
        answer = ask(protocol, endpoint, payer, [{"type": "payment_initiation"}], scope=scope)
        require_refusal(answer, 400, ERROR, endpoint)
        assert "unknown type" in answer.json["error_description"]


HOSTILE = {
    "not JSON": "x",
    "an object": json.dumps(DETAIL),
    "a text": '"x"',
    "null": "null",
    "no detail": "[]",
    "a detail that is no object": "[[]]",
    "deep array": "[" * 4_000,
    "deep object": '[{"type":' * 450,
    "closed deep array": "[" * 2_000 + "]" * 2_000,
    "deep within a detail": json.dumps([DETAIL | {"payer_fa": [[[[[[[[1]]]]]]]]}]),
    "repeated member": '[{"type":"g2p_disbursement","type":"g2p_disbursement"}]',
    "not a number": '[{"type":"g2p_disbursement","count":NaN}]',
    "infinite": '[{"type":"g2p_disbursement","count":1e999}]',
    "huge number": '[{"type":"g2p_disbursement","count":%s}]' % ("9" * 1_000),
    "lone surrogate": '[{"type":"g2p_disbursement","programme":"\\ud800"}]',
    "trailing text": f"[{json.dumps(DETAIL)}] x",
    "another member": '[{"type":"x"}],"more":[{"type":"x"}]',
    "closing brace": '[{"type":"x"}]}',
    "too many": json.dumps([DETAIL] * 17),
    "too long": json.dumps([DETAIL | {"programme": "a" * 4_096}]),
    "longer than a value": "[" + " " * 9_000 + "]",
    "of 64 kB": "[" + " " * 64_000 + "]",
}


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_hostile_details(protocol: Protocol, endpoint: str, payer):
    for name, text in HOSTILE.items():
        answer = ask(protocol, endpoint, payer, text)
        assert answer.status_code in (400, 413), (name, answer.status_code)
        # A value that is too long is refused before its name means anything.
        long = name in ("longer than a value", "of 64 kB")
        expected = "invalid_request" if long else ERROR
        assert answer.json["error"] == expected, name


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_scope_of_the_type_needs_details(protocol: Protocol, endpoint: str, payer):
    require_refusal(protocol.ask(endpoint, payer, scope=SCOPE), 400, ERROR, endpoint)
    require_refusal(protocol.ask(endpoint, payer, scope="disburse.disburse"), 400, ERROR, endpoint)
    assert protocol.ask(endpoint, payer, scope="disburse/search").status_code == 200
    assert protocol.ask(endpoint, payer, authorization_details="").json["scope"] == "mapper/link"
    lenient = new_payer(protocol, authorization_details_required=False)
    answer = protocol.ask(endpoint, lenient, scope=SCOPE)
    assert "authorization_details" not in answer.json
    assert "authorization_details" not in claims_of(answer.json["access_token"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_clients_without_a_grant_of_the_type(protocol: Protocol, endpoint: str, method: str):
    answer = ask(protocol, endpoint, protocol.demo.clients[method], [DETAIL])
    require_refusal(answer, 400, ERROR, endpoint)
    # RFC 9396, 10: the types that the client registered.
    other = new_payer(protocol, method, authorization_details_types=["another"])
    require_refusal(ask(protocol, endpoint, other, [DETAIL]), 400, ERROR, endpoint)
    registered = new_payer(protocol, method, authorization_details_types=[TYPE])
    assert ask(protocol, endpoint, registered, [DETAIL]).status_code == 200


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_window_and_life_of_the_token(protocol: Protocol, endpoint: str, payer):
    def at(seconds):
        return (protocol.clock() + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    for window, lifetime in (
        ({"not_after": at(300)}, 300),
        ({"not_before": at(-300), "not_after": at(5_000)}, 900),
        ({"not_before": at(600)}, 900),
    ):
        answer = ask(protocol, endpoint, payer, [DETAIL | window])
        assert int(answer.json["expires_in"]) == lifetime
        granted = answer.json["authorization_details"][0]
        assert {name: granted[name] for name in window} == window
    # The token ends with the last of its details.
    details = [DETAIL | {"not_after": at(60)}, DETAIL | {"not_after": at(120)}]
    assert int(ask(protocol, endpoint, payer, details).json["expires_in"]) == 120
    assert int(ask(protocol, endpoint, payer, [DETAIL, details[0]]).json["expires_in"]) == 900
    for window in ({"not_after": at(0)}, {"not_after": at(-1)}, {"not_before": at(900)}):
        answer = ask(protocol, endpoint, payer, [DETAIL | window])
        require_refusal(answer, 400, ERROR, endpoint)


def test_window_of_the_grant(protocol: Protocol):
    grant = GRANT | {
        "not_before": "2020-01-01T00:00:00+03:00",
        "not_after": "2099-12-31T23:59:59Z",
    }
    client = new_payer(protocol, authorization_details_grants={TYPE: [grant]})
    granted = ask(protocol, "token", client, [DETAIL]).json["authorization_details"][0]
    assert granted["not_before"] == "2019-12-31T21:00:00Z"
    assert granted["not_after"] == "2099-12-31T23:59:59Z"
    inside = DETAIL | {"not_before": "2020-01-01T00:00:00Z", "not_after": "2099-01-01T00:00:00Z"}
    assert ask(protocol, "token", client, [inside]).status_code == 200
    for window in ({"not_before": "2019-12-31T20:59:59Z"}, {"not_after": "2099-12-31T23:59:60Z"}):
        require_refusal(ask(protocol, "token", client, [DETAIL | window]), 400, ERROR)


def test_lower_limits_end_the_tokens_beyond_them(protocol: Protocol):
    client = new_payer(protocol)
    large = ask(protocol, "token", client, [DETAIL]).json["access_token"]
    small = ask(protocol, "token", client, [DETAIL | {"payment_cap": "1.00"}]).json["access_token"]

    def active(token):
        return protocol.ask("introspect", protocol.demo.disburse, token=token).json["active"]

    assert active(large)
    assert active(small)
    lower = GRANT | {"payment_cap": "10.00"}
    with protocol.parties.change() as (services, session):
        services.clients.update_client(
            session,
            client.id,
            actor=ACTOR,
            properties={"authorization_details_grants": {TYPE: [lower]}},
        )
    assert not active(large)
    assert active(small)
    require_refusal(ask(protocol, "token", client, [DETAIL | {"payment_cap": "10.01"}]), 400, ERROR)


def test_a_resource_server_sees_its_own_details(start_protocol):
    protocol = start_protocol(tokens={"several_resource_servers": "both"})
    client = new_payer(protocol)
    answer = ask(protocol, "token", client, [DETAIL], scope=f"{SCOPE} mapper/link")
    token = answer.json["access_token"]
    assert "authorization_details" in claims_of(token)
    misplaced = [DETAIL | {"locations": [RESOURCE_SERVERS["mapper"]]}]
    answer = ask(protocol, "token", client, misplaced, scope=f"{SCOPE} mapper/link")
    require_refusal(answer, 400, ERROR)
    seen = protocol.ask("introspect", protocol.demo.disburse, token=token).json
    assert seen["authorization_details"] == [GRANTED]
    seen = protocol.ask("introspect", protocol.demo.mapper, token=token).json
    assert (seen["active"], seen["scope"]) == (True, "mapper/link")
    assert "authorization_details" not in seen


def test_details_of_a_reference_token(start_protocol):
    protocol = start_protocol()
    with protocol.parties.change() as (services, session):
        services.clients.update_resource_server(
            session, "disburse", actor=ACTOR, token_format="reference"
        )
    answer = ask(protocol, "token", new_payer(protocol), [DETAIL])
    seen = protocol.ask("introspect", protocol.demo.disburse, token=answer.json["access_token"])
    assert seen.json["authorization_details"] == [GRANTED]


def test_a_type_without_its_plugin_permits_nothing(start_protocol, monkeypatch):
    protocol = start_protocol()
    client = new_payer(protocol)
    token = ask(protocol, "token", client, [DETAIL]).json["access_token"]
    monkeypatch.setattr(protocol.services.detail_rules, "_types", {})
    protocol.services.rules.forget()
    require_refusal(ask(protocol, "token", client, [DETAIL]), 400, ERROR)
    require_refusal(protocol.ask("token", client, scope="disburse/search"), 400, ERROR)
    assert not protocol.ask("introspect", protocol.demo.disburse, token=token).json["active"]


def test_the_metadata_lists_the_types(protocol: Protocol):
    metadata = protocol.get("/.well-known/oauth-authorization-server").json
    assert metadata["authorization_details_types_supported"] == [TYPE]


def test_decisions_with_details_are_not_remembered(protocol: Protocol, payer):
    remembered = len(protocol.services.rules._decided)  # noqa: SLF001
    for number in range(3):
        assert ask(protocol, "token", payer, [DETAIL | {"count": number + 1}]).status_code == 200
    assert len(protocol.services.rules._decided) == remembered  # noqa: SLF001
