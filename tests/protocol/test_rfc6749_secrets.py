"""Secrets with odd characters, empty ones, and damaged records (RFC 6749, 2.3.1 and 4.4)."""

import json
from itertools import count
from urllib.parse import quote, quote_plus

import pytest

from authz_server.clients.models import Client, ClientSecret
from authz_server.database.change_feed import record_change
from support.parties import ACTOR, Credentials
from support.protocol import ENDPOINTS, METHODS, Protocol, basic, require_refusal

#: Imported secrets, each beside a near miss that must not authenticate in any spelling.
SECRETS = {
    "colons:in:the:secret": "colons",
    "per%cent%41lower%": "per%centAlower%%",
    "plus+and+plus": "plus and minus",
    "a space or two": "a+space+or+two!",
    "a&b=c&d=e;f": "a&b=c",
    "\u00e9\u00e8\u00fc\u00df\u65e5\u672c\u8a9e": "\u00e9\u00e8\u00fc\u00df\u65e5\u672c",
    "e\u0301-decomposed": "\u00e9-decomposed",
}
_numbers = count(1)


@pytest.fixture(scope="module")
def clients(protocol: Protocol) -> dict[str, list[Credentials]]:
    """For each method, a client for each of SECRETS."""
    made: dict[str, list[Credentials]] = {method: [] for method in METHODS}
    for method in METHODS:
        for secret in SECRETS:
            client = protocol.new_client(method)
            with protocol.parties.change() as (services, session):
                services.clients.add_secret(
                    session, client.id, actor=ACTOR, imported_secret=secret.encode()
                )
            made[method].append(Credentials(client.id, secret, method))
    return made


def by_basic(protocol: Protocol, endpoint: str, pair: str | bytes):
    return protocol.post(endpoint, protocol.form(endpoint), {"Authorization": basic(pair)})


@pytest.mark.parametrize("spelling", ["client_secret_basic", "client_secret_basic-raw"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_reserved_characters_over_basic(protocol: Protocol, clients, endpoint: str, spelling: str):
    """Case A8."""
    raw = spelling.endswith("raw")
    for client in clients["client_secret_basic"]:
        for encode in (str,) if raw else (quote_plus, quote, lambda text: quote(text, safe="")):
            answer = by_basic(protocol, endpoint, f"{client.id}:{encode(client.secret)}")
            assert answer.status_code == 200, (client.secret, encode(client.secret))


@pytest.mark.parametrize("method", ["client_secret_post"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_reserved_characters_in_the_form(protocol: Protocol, clients, endpoint: str, method: str):
    """Case A8."""
    for client in clients[method]:
        assert protocol.ask(endpoint, client).status_code == 200


@pytest.mark.parametrize("method", ["client_secret_basic"])
def test_every_octet_may_be_escaped(protocol: Protocol, clients, method: str):
    """Case A8."""
    for client in clients[method]:
        escaped = [
            "".join(f"%{each:02X}" for each in text.encode()) for text in (client.id, client.secret)
        ]
        for endpoint in ENDPOINTS:
            answer = by_basic(protocol, endpoint, ":".join(escaped))
            assert answer.status_code == 200
        # The pair is read one way or the other, never half of it each way.
        if quote_plus(client.secret) != client.secret and "%" in client.secret:
            answer = by_basic(protocol, "token", f"{escaped[0]}:{client.secret}")
            assert answer.status_code == 401


@pytest.mark.parametrize("spelling", ["client_secret_basic", "client_secret_basic-raw"])
def test_one_secret_never_turns_into_another(protocol: Protocol, clients, spelling: str):
    """Case A8."""
    encode = str if spelling.endswith("raw") else quote_plus
    for number, client in enumerate(clients["client_secret_basic"]):
        endpoint = tuple(ENDPOINTS)[number % len(ENDPOINTS)]
        for miss in (SECRETS[client.secret], quote_plus(quote_plus(client.secret)) + "%"):
            answer = by_basic(protocol, endpoint, f"{client.id}:{encode(miss)}")
            require_refusal(answer, 401, "invalid_client", endpoint)


@pytest.mark.parametrize("method", ["client_secret", "client_secret_basic"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_secrets_in_latin_1_over_basic(protocol: Protocol, endpoint: str, method: str):
    """Authlib, requests and aiohttp encode a secret in ISO 8859-1. Case A8."""
    secret = "p\u00e4ssw\u00f6rd-caf\u00e9"
    client = protocol.new_client(method)
    with protocol.parties.change() as (services, session):
        services.clients.add_secret(
            session, client.id, actor=ACTOR, imported_secret=secret.encode()
        )
    for pair in (secret.encode("latin-1"), quote(secret.encode("latin-1")).encode()):
        answer = by_basic(protocol, endpoint, f"{client.id}:".encode() + pair)
        assert answer.status_code == 200
        answer = by_basic(protocol, endpoint, f"{client.id}:".encode() + pair + b"\xff")
        require_refusal(answer, 401, "invalid_client", endpoint)


@pytest.mark.parametrize("method", ["client_secret", "client_secret_basic"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_ids_with_colons_over_basic(protocol: Protocol, endpoint: str, method: str):
    """Most clients send an id undecoded. Each is found beside those it begins with. Case A8."""
    number = next(_numbers)
    ids = [f"org{number}", f"org{number}:unit", f"org{number}:unit:1"]
    clients = [protocol.parties.make_client(each, method) for each in ids]
    for client in clients:
        for spelling in (client.id, quote_plus(client.id)):
            answer = by_basic(protocol, endpoint, f"{spelling}:{client.secret}")
            assert answer.status_code == 200, (spelling, endpoint)
        for pair in (f"{client.id}:", f"{client.id}:unit:{client.secret}", f"{client.id}::"):
            answer = by_basic(protocol, endpoint, pair)
            require_refusal(answer, 401, "invalid_client", endpoint)
    protocol.record_refusals_alone()
    by_basic(protocol, endpoint, f"{ids[1]}:{clients[2].secret}")
    assert json.loads(protocol.audit_trail().splitlines()[-1])["client_id"] == ids[1]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_id_in_the_form_decides_where_a_basic_header_is_split(protocol: Protocol, endpoint: str):
    """Otherwise the refusal of two different ids would show who is registered. Cases A1, A8."""
    number = next(_numbers)
    short, unknown = f"pair{number}", f"none{number}"
    client = protocol.parties.make_client(f"{short}:unit", "client_secret_basic")
    protocol.parties.make_client(short, "client_secret_basic")
    with protocol.parties.change() as (services, session):
        services.clients.add_secret(
            session, short, actor=ACTOR, imported_secret=b"unit:and-a-secret"
        )

    def status(client_id: str, pair: str) -> int:
        form = protocol.form(endpoint) | {"client_id": client_id}
        return protocol.post(endpoint, form, {"Authorization": basic(pair)}).status_code

    assert status(client.id, f"{client.id}:{client.secret}") == 200
    assert status(short, f"{short}:unit:and-a-secret") == 200
    for beginning in (short, unknown):
        for claimed in (beginning, f"{beginning}:unit"):
            assert status(claimed, f"{beginning}:unit:wrong") == 401
        assert status("another", f"{beginning}:unit:wrong") == 400


def test_the_record_of_a_refusal_names_the_id_that_is_registered(protocol: Protocol):
    """A header with ``+`` has two readings. Case A8."""
    number = next(_numbers)
    client = protocol.parties.make_client(f"recorded{number}:unit", "client_secret_basic")
    protocol.record_refusals_alone()
    by_basic(protocol, "token", f"{client.id}:wrong+secret")
    record = json.loads(protocol.audit_trail().splitlines()[-1])
    assert record["client_id"] == client.id


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_generated_secrets_need_no_escaping(protocol: Protocol, endpoint: str, method: str):
    """Case A8."""
    client = protocol.new_client(method)
    for text in (client.id, client.secret):
        assert quote_plus(text) == text
    assert protocol.ask(endpoint, client).status_code == 200


#: How a record may stand in a database that something else has written to.
def records_of(protocol: Protocol) -> dict[str, str | None]:
    scheme = protocol.services.secrets
    return {
        "of an empty secret": scheme.record(b""),
        "of a blank": scheme.record(b" "),
        "of a NUL": scheme.record(b"\x00"),
        "empty": "",
        "of an unknown scheme": "plain$secret",
        "without a digest": "hmac-sha256$",
        "no hexadecimal": "hmac-sha256$" + "x" * 64,
        "without argon2's own": "argon2id$",
        "none": None,
    }


def plant(protocol: Protocol, client_id: str, method: str, record: str | None) -> None:
    """Write a client and its secret as no command would."""
    now = protocol.clock()
    lists = ("allowed_scopes", "default_scopes", "allowed_resource_servers", "permissions")
    fields = {name: [] for name in lists} | {"allowed_scopes": ["mapper/link"]}
    with protocol.services.database.transaction() as session:
        session.add(
            Client(
                id=client_id,
                kind="client",
                name="Planted",
                organisation="",
                enabled=True,
                authentication_method=method,
                grant_types=["client_credentials"],
                created_at=now,
                updated_at=now,
                **fields,
            )
        )
        session.flush()
        if record is not None:
            secret = ClientSecret(id=client_id, client_id=client_id, record=record, created_at=now)
            session.add(secret)
        record_change(session, "client", client_id)
    protocol.services.feed.poll()


@pytest.mark.parametrize("registered", [*METHODS, "none", ""])
def test_nothing_empty_ever_authenticates(start_protocol, registered: str):
    """Case A9."""
    protocol = start_protocol()
    for number, record in enumerate(records_of(protocol).values()):
        client_id = f"planted-{number}"
        plant(protocol, client_id, registered, record)
        for endpoint in ENDPOINTS:
            for fields, headers in empty_offers(client_id):
                answer = protocol.post(endpoint, protocol.form(endpoint) | fields, headers)
                require_refusal(answer, 401, "invalid_client", endpoint)
            if registered == "none":
                # What a client of no method may know, its id, is no way in.
                offer = {"client_id": client_id, "client_secret": "none"}
                answer = protocol.post(endpoint, protocol.form(endpoint) | offer)
                require_refusal(answer, 401, "invalid_client", endpoint)


def empty_offers(client_id: str) -> list[tuple[dict[str, str], dict[str, str]]]:
    """Return form fields and headers that offer nothing, in every way of doing so."""
    return [
        ({"client_id": client_id}, {}),
        ({"client_id": client_id, "client_secret": ""}, {}),
        ({}, {"Authorization": basic(client_id)}),
        ({}, {"Authorization": basic(f"{client_id}:")}),
        ({"client_id": client_id, "client_secret": ""}, {"Authorization": basic(":")}),
        ({"client_id": client_id}, {"Authorization": basic(f"{client_id}:")}),
    ]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_client_without_any_secret(protocol: Protocol, endpoint: str, method: str):
    """Case A9."""
    client_id = f"bare-{next(_numbers)}"
    plant(protocol, client_id, method, None)
    for secret in ("", " ", "\x00", "None", "null", "x" * 43):
        answer = protocol.offer(endpoint, method, client_id, secret)
        # A control character in a form is refused as the form's fault.
        assert answer.status_code in (400, 401)
        assert answer.json["error"] in ("invalid_client", "invalid_request")
        assert (answer.status_code == 400) == (secret == "\x00" and method.endswith("post"))


@pytest.mark.parametrize("method", METHODS)
def test_damaged_record_keeps_nobody_else_out(protocol: Protocol, method: str):
    """Case A9."""
    healthy = protocol.new_client(method)
    for record in records_of(protocol).values():
        plant(protocol, f"damaged-{next(_numbers)}", method, record)
    for endpoint in ENDPOINTS:
        assert protocol.ask(endpoint, healthy).status_code == 200
