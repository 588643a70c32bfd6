"""Requests and answers of the token endpoint, and what holds for every form (RFC 6749)."""

import pytest

from support.parties import ACTOR
from support.protocol import (
    ENDPOINTS,
    FORM_TYPE,
    METHODS,
    TOKEN_ENDPOINTS,
    Protocol,
    require_refusal,
)

OTHER_METHODS = ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_other_methods_are_refused_and_leave_no_record(protocol: Protocol, endpoint: str):
    """Case B17."""
    caller = protocol.demo.post
    form, path = protocol.form(endpoint) | caller.form(), ENDPOINTS[endpoint]
    before = protocol.audit_trail()
    for method in OTHER_METHODS:
        for options in ({"data": form}, {"query_string": form}):
            answer = protocol.send(method, path, **options)
            assert answer.status_code == 405
            assert answer.headers["Allow"] == "POST"
            assert answer.headers["Cache-Control"] == "no-store"
            if method != "HEAD":
                require_refusal(answer, 405, "invalid_request", endpoint)
    assert protocol.audit_trail() == before


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_parameters_in_the_query_are_refused(protocol: Protocol, endpoint: str):
    """Case B17."""
    caller = protocol.demo.post
    form = protocol.form(endpoint) | caller.form()
    headers = {"Content-Type": FORM_TYPE, **protocol.profile_headers(endpoint)}
    for name, value in [*form.items(), ("unknown", "1")]:
        rest = {key: kept for key, kept in form.items() if key != name}
        for body in (form, rest):
            answer = protocol.send(
                "POST", ENDPOINTS[endpoint], data=body, headers=headers, query_string={name: value}
            )
            require_refusal(answer, 400, "invalid_request", endpoint)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_repeated_parameters_are_refused(protocol: Protocol, endpoint: str, method: str):
    """Case B18."""
    caller = protocol.demo.clients[method]
    form = protocol.form(endpoint) | caller.form() | {"unknown": "1"}
    for name, value in form.items():
        escaped = f"%{ord(name[0]):02x}{name[1:]}"
        for twin in (f"{name}={value}", f"{name}=other", f"{name}=", name, f"{escaped}={value}"):
            body = "&".join([f"{key}={kept}" for key, kept in form.items()] + [twin])
            answer = protocol.post(endpoint, body, caller.headers())
            require_refusal(answer, 400, "invalid_request", endpoint)


@pytest.mark.parametrize("endpoint", ["introspect", "revoke"])
def test_resource_may_repeat_at_the_token_endpoint_alone(protocol: Protocol, endpoint: str):
    """Case B18."""
    resources = ["https://mapper.example", "https://disburse.example"]
    answer = protocol.ask(endpoint, protocol.demo.basic, resource=resources)
    require_refusal(answer, 400, "invalid_request", endpoint)


CONTENT_TYPES = {
    "json": "application/json",
    "multipart": "multipart/form-data; boundary=x",
    "text": "text/plain",
    "none": "",
    "utf-16": f"{FORM_TYPE}; charset=utf-16",
    "bogus": f"{FORM_TYPE}; charset=bogus",
    "second-charset": f"{FORM_TYPE}; charset=utf-8; charset=utf-16",
    "look-alike": "application/x-www-form-urlencoded-not",
    "list": f"{FORM_TYPE}, application/json",
}


@pytest.mark.parametrize("name", CONTENT_TYPES)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_other_content_types_are_refused(protocol: Protocol, endpoint: str, name: str):
    """Case B19."""
    caller = protocol.demo.post
    headers = {"Content-Type": CONTENT_TYPES[name]}
    form = protocol.form(endpoint) | caller.form()
    require_refusal(protocol.post(endpoint, form, headers), 415, "invalid_request", endpoint)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x", "", "identity, gzip"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_encoded_bodies_are_refused(protocol: Protocol, endpoint: str, encoding: str):
    """Case B19."""
    headers = protocol.demo.basic.headers() | {"Content-Encoding": encoding}
    answer = protocol.post(endpoint, protocol.form(endpoint), headers)
    require_refusal(answer, 415, "invalid_request", endpoint)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_bodies_of_other_kinds_under_the_right_type(protocol: Protocol, endpoint: str):
    """Case B19."""
    caller = protocol.demo.basic
    for body in (b'{"token":"x"}', b"\xff\xfet\x00", b"\x1f\x8b\x08", b"a=%ff", b"a=%", b"a=%zz"):
        answer = protocol.post(endpoint, body, caller.headers())
        require_refusal(answer, 400, "invalid_request", endpoint)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_right_type_in_its_spellings(protocol: Protocol, endpoint: str):
    """Case B19."""
    for kind in (f"{FORM_TYPE};charset=UTF-8", f'{FORM_TYPE.upper()} ; charset="utf-8"'):
        headers = protocol.demo.basic.headers() | {"Content-Type": kind}
        assert protocol.post(endpoint, protocol.form(endpoint), headers).status_code == 200


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_missing_and_unknown_grant_types(protocol: Protocol, endpoint: str):
    """Case B29."""
    caller = protocol.demo.post
    answer = protocol.ask(endpoint, caller, without="grant_type")
    require_refusal(answer, 400, "invalid_request", endpoint)
    for grant_type in ("Client_Credentials", "client_credentials ", "client-credentials", "x"):
        answer = protocol.ask(endpoint, caller, grant_type=grant_type)
        require_refusal(answer, 400, "unsupported_grant_type", endpoint)


OTHER_GRANTS = {
    "password": {"username": "client-post", "password": "right"},
    "refresh_token": {"refresh_token": "x"},
    "authorization_code": {"code": "x", "redirect_uri": "https://a.example/"},
    "implicit": {"response_type": "token"},
    "urn:ietf:params:oauth:grant-type:jwt-bearer": {"assertion": "x"},
    "urn:ietf:params:oauth:grant-type:device_code": {"device_code": "x"},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grant_type", OTHER_GRANTS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_grants_that_nobody_has(protocol: Protocol, endpoint: str, grant_type: str, method: str):
    """Case B29."""
    caller = protocol.demo.clients[method]
    valid = {name: protocol.new_token() for name in ("refresh_token", "assertion", "subject_token")}
    for artefacts in (OTHER_GRANTS[grant_type], valid):
        answer = protocol.ask(endpoint, caller, grant_type=grant_type, **artefacts)
        require_refusal(answer, 400, "unsupported_grant_type", endpoint)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_clients_without_the_grant(protocol: Protocol, endpoint: str, method: str):
    """Case B29."""
    without = protocol.new_client(method, grant_types=[])
    answer = protocol.ask(endpoint, without)
    require_refusal(answer, 400, "unauthorized_client", endpoint)
    # A resource server's credentials are good for introspection and obtain no tokens.
    answer = protocol.ask(endpoint, protocol.demo.mapper)
    require_refusal(answer, 400, "unauthorized_client", endpoint)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_grant_withdrawn_from_a_client(protocol: Protocol, endpoint: str, method: str):
    """Case B29."""
    client = protocol.new_client(method)
    assert protocol.ask(endpoint, client).status_code == 200
    with protocol.parties.change() as (services, session):
        services.clients.update_client(session, client.id, actor=ACTOR, grant_types=[])
    require_refusal(protocol.ask(endpoint, client), 400, "unauthorized_client", endpoint)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_answer_of_the_token_endpoint(protocol: Protocol, endpoint: str, method: str):
    """Case B28."""
    answer = protocol.ask(endpoint, protocol.demo.clients[method])
    assert answer.status_code == 200
    assert answer.json.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert answer.json["scope"] == "mapper/link"
    if endpoint == "token":
        assert answer.json["token_type"] == "Bearer"
        assert answer.json["expires_in"] == 900
        assert type(answer.json["expires_in"]) is int


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_no_answer_may_be_kept(protocol: Protocol, endpoint: str, method: str):
    """Case B28."""
    caller = protocol.demo.clients[method]
    missing = "grant_type" if endpoint in TOKEN_ENDPOINTS else "token"
    answers = [
        protocol.ask(endpoint, caller),
        protocol.ask(endpoint, caller, without=missing),
        protocol.offer(endpoint, method, caller.id, "wrong"),
        protocol.post(endpoint, "a=%", {}),
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 401, 400]
    for answer in answers:
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Pragma"] == "no-cache"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.content_type == "application/json"
        assert "ETag" not in answer.headers
        assert "Set-Cookie" not in answer.headers
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == len(answers)
