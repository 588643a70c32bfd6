"""Limits of a client in place, time and number, and the message key in its tokens."""

from datetime import timedelta
from itertools import product

import pytest

from support.assertions import make_signer
from support.claims import claims_of
from support.parties import ACTOR, Credentials
from support.protocol import (
    ENDPOINTS,
    METHODS,
    TOKEN_ENDPOINTS,
    Protocol,
    facts,
    present,
    require_refusal,
)
from support.token_exchange import exchange, new_gateway

HERE, ELSEWHERE = "198.51.100.7", "203.0.113.66"
WRONG = "wrong-wrong-wrong-wrong-wrong-wrong-wrong-w"
THUMBPRINT = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
SCOPES = {"jwt": "mapper/link", "reference": "registry/search"}


@pytest.fixture(scope="module")
def registry(protocol: Protocol) -> Credentials:
    """A resource server with reference tokens."""
    return protocol.parties.make_resource_server("registry", token_format="reference")


def limited(protocol: Protocol, method: str = METHODS[1], **properties) -> Credentials:
    """Make a client with these properties, for both formats of tokens."""
    scopes = ["mapper/link", "mapper/resolve", "registry/search"]
    return protocol.new_client(method, allowed_scopes=scopes, properties=properties)


def change(protocol: Protocol, client_id: str, **properties) -> None:
    with protocol.parties.change() as (services, session):
        services.clients.update_client(session, client_id, actor=ACTOR, properties=properties)


def send(protocol: Protocol, endpoint: str, client: Credentials, address: str, secret: str = ""):
    """Offer the client's secret, or another one, from an address."""
    fields, headers = present(client.method, client.id, secret or client.secret)
    form = protocol.form(endpoint) | fields
    return protocol.post(endpoint, form, headers, environ_base={"REMOTE_ADDR": address})


def window(protocol: Protocol, opens: int, closes: int) -> dict:
    """Return a window of every day, from and to so many minutes from the present minute."""
    ends = [protocol.clock() + timedelta(minutes=each) for each in (opens, closes)]
    return dict(zip(("from", "to"), (f"{end:%H:%M}" for end in ends), strict=True)) | {
        "time_zone": "UTC"
    }


# ------------------------------------------------------------------------------------- in place


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_right_secret_from_another_network_is_refused_like_a_wrong_one(
    protocol: Protocol, endpoint: str, method: str
):
    """The response does not tell which check failed; the audit record does. Case T281."""
    client = limited(protocol, method, allowed_networks=["198.51.100.0/24", "2001:db8:1::/48"])
    for address in (HERE, "::ffff:198.51.100.9", "2001:db8:1:2::3"):
        assert send(protocol, endpoint, client, address).status_code == 200
    for address in (ELSEWHERE, "2001:db8:2::1"):
        refused = send(protocol, endpoint, client, address)
        require_refusal(refused, 401, "invalid_client", endpoint)
        assert facts(refused) == facts(send(protocol, endpoint, client, address, WRONG))
    assert '"reason":"network_not_allowed"' in protocol.audit_trail()
    change(protocol, client.id, allowed_networks=None)
    assert send(protocol, endpoint, client, ELSEWHERE).status_code == 200


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("alg", ["ES256", "HS256"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_limits_hold_for_assertions_too(protocol: Protocol, endpoint: str, alg: str):
    """`private_key_jwt` and `client_secret_jwt`. Cases T281, T282, T283."""
    name = f"signer-{alg}-{endpoint}"
    signer = make_signer(protocol.parties, name, lambda: protocol.clock().timestamp(), alg)
    change(protocol, name, allowed_networks=[HERE])

    def ask(address: str, **claims: str):
        form = protocol.form(endpoint) | signer.form(signer.assertion(**claims))
        return protocol.post(endpoint, form, environ_base={"REMOTE_ADDR": address})

    refused = ask(ELSEWHERE)
    require_refusal(refused, 401, "invalid_client", endpoint)
    assert facts(refused) == facts(ask(ELSEWHERE, aud="https://other.example"))
    assert ask(HERE).status_code == 200
    if endpoint in TOKEN_ENDPOINTS:
        change(protocol, name, payment_windows=[window(protocol, -60, -1)])
        require_refusal(ask(HERE), 400, "unauthorized_client", endpoint)
        budget = {"per": "day", "tokens": 1}
        change(protocol, name, payment_windows=None, token_budget=budget)
        assert [ask(HERE).status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ["introspect", "revoke"])
def test_a_resource_server_has_networks_too(protocol: Protocol, endpoint: str, method: str):
    """Its credentials introspect every token of its audience. Case T281."""
    name = f"server-{protocol.new_client().id}"
    server = protocol.parties.make_resource_server(
        name, method, properties={"allowed_networks": [HERE]}
    )
    assert send(protocol, endpoint, server, HERE).status_code == 200
    refused = send(protocol, endpoint, server, ELSEWHERE)
    require_refusal(refused, 401, "invalid_client", endpoint)


def test_the_network_is_that_of_the_client_behind_a_trusted_proxy(start_protocol):
    """A header of another peer is not believed at any endpoint. Cases T281, I100."""
    protocol = start_protocol(server={"trusted_proxies": ["10.0.0.0/24"]})
    client = limited(protocol, allowed_networks=[HERE])
    sent = (
        ("10.0.0.5", HERE, 200),
        ("10.0.0.5", f"{HERE}, {ELSEWHERE}", 401),
        (ELSEWHERE, HERE, 401),
        ("10.0.0.5", "", 401),
    )
    for endpoint, (peer, forwarded, status) in product(ENDPOINTS, sent):
        form = protocol.form(endpoint) | client.form()
        headers, base = {"X-Forwarded-For": forwarded}, {"REMOTE_ADDR": peer}
        answer = protocol.post(endpoint, form, headers, environ_base=base)
        assert answer.status_code == status, (endpoint, peer, forwarded)


def test_throttling_does_not_tell_a_right_secret_from_a_wrong_one(start_protocol):
    """Both are slowed down elsewhere; the client is served where it belongs. Cases A13, T281."""
    protocol = start_protocol(clients={"failures_per_window": 3})
    for number, (endpoint, secret) in enumerate(product(ENDPOINTS, ("", WRONG))):
        client, elsewhere = limited(protocol, allowed_networks=[HERE]), f"203.0.113.{number}"
        answers = [send(protocol, endpoint, client, elsewhere, secret) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [401] * 3 + [429], endpoint
        assert send(protocol, endpoint, client, HERE).status_code == 200


# -------------------------------------------------------------------------------------- in time


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
@pytest.mark.parametrize("form", SCOPES)
def test_no_token_outside_the_payment_windows(
    protocol: Protocol, endpoint: str, method: str, form: str
):
    """RFC 6749, 5.2: the client is authenticated, and not authorized at this time. Case T282."""
    client = limited(protocol, method, payment_windows=[window(protocol, -60, -1)])
    refused = protocol.ask(endpoint, client, scope=SCOPES[form])
    require_refusal(refused, 400, "unauthorized_client", endpoint)
    assert '"reason":"outside_payment_window"' in protocol.audit_trail()
    change(protocol, client.id, payment_windows=[window(protocol, -60, 60)])
    assert protocol.ask(endpoint, client, scope=SCOPES[form]).status_code == 200


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
@pytest.mark.parametrize("form", SCOPES)
def test_a_token_ends_with_the_payment_window(
    protocol: Protocol, registry: Credentials, endpoint: str, method: str, form: str
):
    """A window that was narrowed since ends the token at introspection as well. Case T282."""
    client = limited(protocol, method, payment_windows=[window(protocol, -60, 5)])
    answer = protocol.ask(endpoint, client, scope=SCOPES[form])
    left = 300 - protocol.clock().second
    assert int(answer.json["expires_in"]) == left
    token = answer.json["access_token"]
    server = registry if form == "reference" else protocol.demo.mapper
    seen = protocol.ask("introspect", server, token=token).json
    assert seen["exp"] - seen["iat"] == left
    # Outside its windows, a client may still ask about its tokens and revoke them.
    change(protocol, client.id, payment_windows=[window(protocol, -60, -1)])
    assert protocol.ask("introspect", server, token=token).json == {"active": False}
    assert protocol.ask("introspect", client, token=token).status_code == 200
    change(protocol, client.id, payment_windows=None)
    assert protocol.ask("introspect", server, token=token).json["active"] is True
    change(protocol, client.id, payment_windows=[window(protocol, -60, -1)])
    assert protocol.ask("revoke", client, token=token).status_code == 200
    change(protocol, client.id, payment_windows=None)
    assert protocol.ask("introspect", server, token=token).json == {"active": False}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_dates_of_a_client_hold_at_every_endpoint(protocol: Protocol, endpoint: str, method: str):
    """Before its start and from its end on, as for an unknown client. Cases A1, A15, T282."""
    now = protocol.clock()
    dates = {"starts_at": now + timedelta(seconds=1)}, {"expires_at": now}
    for given in dates:
        client = protocol.new_client(method, **given)
        refused = protocol.ask(endpoint, client)
        require_refusal(refused, 401, "invalid_client", endpoint)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_a_token_does_not_outlive_its_client(protocol: Protocol, endpoint: str, method: str):
    """Verifiers by signature never learn of the client's end. Case T282."""
    client = protocol.new_client(method, expires_at=protocol.clock() + timedelta(seconds=100))
    answer = protocol.ask(endpoint, client)
    assert int(answer.json["expires_in"]) == 100
    claims = claims_of(answer.json["access_token"])
    assert claims["exp"] - claims["iat"] == 100


# ------------------------------------------------------------------------------------ in number


@pytest.mark.usefixtures("alone", "registry")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
@pytest.mark.parametrize("form", SCOPES)
def test_beyond_its_budget_a_client_has_to_wait(
    protocol: Protocol, endpoint: str, method: str, form: str
):
    """429 with Retry-After until the next period; all else is answered. Case T283."""
    client = limited(protocol, method, token_budget={"per": "minute", "tokens": 3})
    answers = [protocol.ask(endpoint, client, scope=SCOPES[form]) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
    require_refusal(answers[-1], 429, "slow_down", endpoint)
    wait = int(answers[-1].headers["Retry-After"])
    assert wait == 60 - protocol.clock().second
    assert '"reason":"token_budget_spent"' in protocol.audit_trail()
    other = next(each for each in TOKEN_ENDPOINTS if each != endpoint)
    assert protocol.ask(other, client).status_code == 429
    assert protocol.ask(other, protocol.demo.post).status_code == 200
    for further in ("introspect", "revoke"):
        token = answers[0].json["access_token"]
        assert protocol.ask(further, client, token=token).status_code == 200
    protocol.clock.advance(wait)
    assert protocol.ask(endpoint, client, scope=SCOPES[form]).status_code == 200


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_a_budget_of_a_scope_counts_tokens_with_that_scope(protocol: Protocol, endpoint: str):
    """In any spelling; a refused token counts in no other budget. Case T283."""
    budgets = [
        {"per": "hour", "tokens": 2, "scope": "mapper.link"},
        {"per": "day", "tokens": 4},
    ]
    client = limited(protocol, token_budget=budgets)

    def status(scope: str) -> int:
        return protocol.ask(endpoint, client, scope=scope).status_code

    both = "mapper/link mapper/resolve"
    assert [status(each) for each in ("mapper.link", both, both)] == [200, 200, 429]
    assert [status("mapper/resolve") for _ in range(3)] == [200, 200, 429]


# -------------------------------------------------------------------------------- message keys


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
@pytest.mark.parametrize("form", SCOPES)
def test_token_and_introspection_name_the_message_key(
    protocol: Protocol, registry: Credentials, endpoint: str, method: str, form: str
):
    """Case T284."""
    key = {"jkt" if form == "jwt" else "x5t#S256": THUMBPRINT}
    client = limited(protocol, method, sender_id="spp.example.org", message_key_thumbprint=key)
    token = protocol.ask(endpoint, client, scope=SCOPES[form]).json["access_token"]
    server = registry if form == "reference" else protocol.demo.mapper
    seen = [protocol.ask("introspect", server, token=token).json]
    if form == "jwt":
        seen.append(claims_of(token))
    for claims in seen:
        assert claims["sender_id"] == "spp.example.org"
        assert claims["message_cnf"] == key
        # A key in `cnf` would require a proof of possession of every sender.
        assert "cnf" not in claims


def test_a_client_without_these_properties_has_none_of_the_claims(protocol: Protocol):
    """Case T284."""
    token = protocol.new_token()
    for claims in (claims_of(token), protocol.ask("introspect", protocol.demo.mapper, token=token)):
        found = claims if isinstance(claims, dict) else claims.json
        assert not {"sender_id", "message_cnf"} & found.keys()


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_limits_hold_for_a_token_exchange(protocol: Protocol, endpoint: str):
    """They are those of the client that exchanges: no grant leads around. Cases T282 to T284."""
    gateway = new_gateway(protocol)
    subject = limited(protocol)
    change(
        protocol,
        gateway.id,
        payment_windows=[window(protocol, -60, 5)],
        token_budget={"per": "day", "tokens": 1},
        sender_id="gateway.example.org",
        message_key_thumbprint=THUMBPRINT,
    )
    token = protocol.new_token(subject)
    answer = exchange(protocol, gateway, token, endpoint)
    claims = claims_of(answer.json["access_token"])
    assert claims["exp"] - claims["iat"] == 300 - protocol.clock().second
    assert claims["sender_id"] == "gateway.example.org"
    assert claims["message_cnf"] == {"jkt": THUMBPRINT}
    require_refusal(exchange(protocol, gateway, token, endpoint), 429, "slow_down", endpoint)
    closed = [window(protocol, -60, -1)]
    change(protocol, gateway.id, payment_windows=closed)
    refused = exchange(protocol, gateway, token, endpoint)
    require_refusal(refused, 400, "unauthorized_client", endpoint)
