"""Which resource server a token is for (RFC 8707, 2; RFC 9068, 3)."""

import pytest

from support.claims import claims_of
from support.parties import ACTOR, RESOURCE_SERVERS
from support.protocol import METHODS, TOKEN_ENDPOINTS, Protocol, require_refusal

MAPPER, DISBURSE = RESOURCE_SERVERS["mapper"], RESOURCE_SERVERS["disburse"]

NO_RESOURCE_SERVERS = {
    "relative": "/mapper",
    "without-scheme": "mapper.example",
    "with-fragment": f"{MAPPER}#fragment",
    "with-empty-fragment": f"{MAPPER}#",
    "unknown": "https://unknown.example",
    "with-path": f"{MAPPER}/link",
    "with-port": f"{MAPPER}:8443",
    "with-query": f"{MAPPER}?a=b",
    "with-user": MAPPER.replace("//", "//user@"),
    "without-slashes": MAPPER.replace("//", ""),
    "other-scheme": MAPPER.replace("https", "http"),
    "blank-before": f" {MAPPER}",
    "two-in-one": f"{MAPPER} {DISBURSE}",
    "id": "mapper",
    "client": "client-post",
    "pattern": "https://*.example",
    "issuer": "https://authz.example",
    "long": f"{MAPPER}/{'a' * 8_000}",
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_what_names_no_resource_server(protocol: Protocol, endpoint: str, method: str):
    """Case B26."""
    caller = protocol.demo.clients[method]
    for resource in NO_RESOURCE_SERVERS.values():
        for resources in (resource, [MAPPER, resource], [resource, MAPPER]):
            answer = protocol.ask(endpoint, caller, resource=resources)
            require_refusal(answer, 400, "invalid_target", endpoint)


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_spellings_of_one_identifier(protocol: Protocol, endpoint: str):
    """Case B26."""
    caller = protocol.demo.post
    dots = f"{MAPPER}{'/.' * 4_000}"
    spellings = (f"{MAPPER}/", MAPPER.upper(), f"{MAPPER}:443", f"{MAPPER}/.", dots)
    for resource in spellings:
        for resources in (resource, [MAPPER, resource]):
            answer = protocol.ask(endpoint, caller, resource=resources)
            assert claims_of(answer.json["access_token"])["aud"] == MAPPER
    decided = protocol.services.rules._decided  # noqa: SLF001 - nothing else shows what it keeps
    assert not any(dots in question[3] for question in decided)
    name, scope = f"slash-{endpoint}", "registry/notify"
    protocol.parties.make_resource_server(name, identifier=f"https://{name}.example/")
    with protocol.parties.change() as (services, session):
        services.scopes.assign(session, [scope], name, actor=ACTOR)
    client = protocol.new_client(allowed_scopes=[scope], default_scopes=[])
    answer = protocol.ask(endpoint, client, scope=scope, resource=f"https://{name}.example")
    assert claims_of(answer.json["access_token"])["aud"] == f"https://{name}.example/"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_resource_server_that_this_client_may_not_reach(
    protocol: Protocol, endpoint: str, method: str
):
    """Case B26."""
    scopes = ["mapper/link", "disburse/search"]
    client = protocol.new_client(method, allowed_scopes=scopes, allowed_resource_servers=["mapper"])
    answer = protocol.ask(endpoint, client, scope="disburse/search", resource=DISBURSE)
    require_refusal(answer, 400, "invalid_target", endpoint)
    # Left unnamed it is not reached either: it would be the audience of a token for its scope.
    answer = protocol.ask(endpoint, client, scope="disburse/search")
    require_refusal(answer, 400, "invalid_scope", endpoint)
    answer = protocol.ask(endpoint, client, resource=MAPPER)
    assert claims_of(answer.json["access_token"])["aud"] == MAPPER


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_many_resources(protocol: Protocol, endpoint: str, method: str):
    """Case B26."""
    caller = protocol.demo.clients[method]
    many = [f"https://{number}.example" for number in range(50)]
    for resources in (many, [MAPPER] * 50, [MAPPER] * 17):
        answer = protocol.ask(endpoint, caller, resource=resources)
        require_refusal(answer, 400, "invalid_target", endpoint)
    answer = protocol.ask(endpoint, caller, resource=[MAPPER, MAPPER])
    assert claims_of(answer.json["access_token"])["aud"] == MAPPER


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_named_resource_server_has_to_own_the_scopes(protocol: Protocol, endpoint: str):
    """Cases B26, C31."""
    caller = protocol.demo.post
    answer = protocol.ask(endpoint, caller, scope="mapper/link", resource=DISBURSE)
    require_refusal(answer, 400, "invalid_scope", endpoint)
    answer = protocol.ask(endpoint, caller, scope="disburse/search", resource=DISBURSE)
    assert claims_of(answer.json["access_token"])["aud"] == DISBURSE
    answer = protocol.ask(endpoint, caller, resource="")
    assert claims_of(answer.json["access_token"])["aud"] == MAPPER


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_scopes_of_two_resource_servers_are_refused(protocol: Protocol, endpoint: str, method: str):
    """Case C31."""
    caller = protocol.demo.clients[method]
    for scope in ("mapper/link disburse/search", "disburse/search mapper/link mapper/resolve"):
        answer = protocol.ask(endpoint, caller, scope=scope)
        require_refusal(answer, 400, "invalid_scope", endpoint)
        answer = protocol.ask(endpoint, caller, scope=scope, resource=[MAPPER, DISBURSE])
        require_refusal(answer, 400, "invalid_target", endpoint)
        answer = protocol.ask(endpoint, caller, scope=scope, resource=MAPPER)
        require_refusal(answer, 400, "invalid_scope", endpoint)


def test_resource_chooses_among_default_scopes(protocol: Protocol):
    """Cases B21, C31."""
    scopes = ["mapper/link", "disburse/search"]
    client = protocol.new_client(allowed_scopes=scopes, default_scopes=scopes)
    for endpoint in TOKEN_ENDPOINTS:
        answer = protocol.ask(endpoint, client, without="scope")
        require_refusal(answer, 400, "invalid_scope", endpoint)
        answer = protocol.ask(endpoint, client, without="scope", resource=DISBURSE)
        assert answer.json["scope"] == "disburse/search"
        assert claims_of(answer.json["access_token"])["aud"] == DISBURSE


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_both_are_the_audience_where_settings_say_so(start_protocol, endpoint: str):
    """Case C31."""
    protocol = start_protocol(tokens={"several_resource_servers": "both"})
    scope, caller = "mapper/link disburse/search", protocol.demo.post
    for resources in ([], [MAPPER, DISBURSE]):
        answer = protocol.ask(endpoint, caller, scope=scope, resource=resources)
        assert claims_of(answer.json["access_token"])["aud"] == [MAPPER, DISBURSE]
        # Each sees the scopes that it owns, and no other's.
        for server, own in (("mapper", "mapper/link"), ("disburse", "disburse/search")):
            told = protocol.ask(
                "introspect", getattr(protocol.demo, server), token=answer.json["access_token"]
            )
            assert told.json["scope"] == own
    answer = protocol.ask(endpoint, caller, scope=scope, resource=MAPPER)
    require_refusal(answer, 400, "invalid_scope", endpoint)


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_tokens_of_two_forms_are_never_one(start_protocol, endpoint: str):
    """Case C31."""
    protocol = start_protocol(tokens={"several_resource_servers": "both"})
    with protocol.parties.change() as (services, session):
        services.clients.update_resource_server(
            session, "disburse", actor=ACTOR, token_format="reference"
        )
    answer = protocol.ask(endpoint, protocol.demo.post, scope="mapper/link disburse/search")
    require_refusal(answer, 400, "invalid_scope", endpoint)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_disabled_resource_server_gets_no_tokens(protocol: Protocol, endpoint: str, method: str):
    """Case B26."""
    caller = protocol.demo.clients[method]
    protocol.parties.make_resource_server("registry")
    client = protocol.new_client(method, allowed_scopes=["registry/search"], default_scopes=[])
    identifier = "https://registry.example"
    assert protocol.ask(endpoint, client, scope="registry/search").status_code == 200
    for enabled in (False, None):
        with protocol.parties.change() as (services, session):
            if enabled is None:
                services.clients.delete_client(session, "registry", actor=ACTOR)
            else:
                services.clients.set_enabled(session, "registry", actor=ACTOR, enabled=enabled)
        answer = protocol.ask(endpoint, client, scope="registry/search")
        require_refusal(answer, 400, "invalid_scope", endpoint)
        answer = protocol.ask(endpoint, caller, resource=identifier)
        assert answer.status_code == 400
        assert answer.json["error"] in ("invalid_target", "invalid_scope")
