"""Software statements (RFC 7591, 2.3): metadata that a registered issuer has signed."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.protocol import require_refusal, running_protocol
from support.registration import UNLIMITED, Registrar

ISSUER = "https://registry.example"
OTHER = "https://cluster.example"


class Publisher:
    """Signs software statements."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())

    def jwks(self) -> str:
        """Return the public key as a JWK set."""
        key = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return json.dumps({"keys": [key | {"kid": "one", "alg": "ES256"}]})

    def sign(self, *, alg: str = "ES256", key: Any = None, typ: str = "JWT", **claims: Any) -> str:
        """Return a statement; claims that are None are left out."""
        members = {"iss": ISSUER, "software_id": "erp", "scope": "mapper/link"} | claims
        members = {name: value for name, value in members.items() if value is not None}
        payload = json.dumps(members).encode()
        return jwt.PyJWS().encode(payload, key or self.key, alg, headers={"kid": "one", "typ": typ})


@pytest.fixture(scope="module")
def publisher() -> Publisher:
    """The issuer of statements."""
    return Publisher()


@pytest.fixture(scope="module")
def registrar(
    module_database_url: str, tmp_path_factory, publisher: Publisher
) -> Iterator[Registrar]:
    """An application that approves one of two registered issuers."""
    directory = tmp_path_factory.mktemp("statements")
    with running_protocol(directory, module_database_url, **tables(directory, publisher)) as made:
        yield Registrar(made)


def tables(directory: Path, publisher: Publisher, **registration: Any) -> dict[str, Any]:
    """Return the settings of the two issuers, and further ones of ``[registration]``."""
    (directory / "jwks.json").write_text(publisher.jwks())
    issuer = {"jwks_file": "jwks.json"}
    approved = {"registry": ["mapper.link", "mapper/resolve", "no/such"]}
    return {
        "registration": UNLIMITED | {"software_statement_issuers": approved} | registration,
        "issuers": {
            "registry": issuer | {"issuer": ISSUER},
            "cluster": issuer | {"issuer": OTHER},
        },
    }


def test_a_statement_alone_registers_with_its_own_members(registrar, publisher):
    """Case H89."""
    statement = publisher.sign(client_name="ERP", scope="mapper.link disburse/disburse")
    sent = {"software_statement": statement, "client_name": "Other", "software_version": "2"}
    # The statement may give a scope, and its issuer may not.
    refused = registrar.register(sent)
    require_refusal(refused, 400, "invalid_client_metadata")
    statement = publisher.sign(client_name="ERP", scope="mapper.link")
    client = registrar.register(sent | {"software_statement": statement}).json
    assert (client["client_name"], client["software_version"]) == ("ERP", "2")
    assert (client["scope"], client["software_statement"]) == ("mapper/link", statement)
    assert registrar.protocol.ask("token", registrar.credentials(client)).status_code == 200
    records = map(json.loads, registrar.protocol.audit_trail().splitlines())
    (record,) = [
        each
        for each in records
        if (each.get("client_id"), each.get("action")) == (client["client_id"], "client.registered")
    ]
    assert record["actor"] == "issuer:registry"


def test_translations_are_those_of_the_statement(registrar, publisher):
    """RFC 7591, 2.2 and 3.1.1: of a member that it has, the request adds none."""
    stated = {"client_name": "Bank A", "client_name#fr": "Banque A"}
    statement = publisher.sign(**stated, **{"role#fr": "x"})
    sent = {"client_name#fr": "Banque B", "client_name#es": "Banco B", "tos_uri#fr": "https://b.fr"}
    client = registrar.register({"software_statement": statement, **sent}).json
    assert client.items() >= (stated | {"tos_uri#fr": "https://b.fr"}).items()
    assert not {"client_name#es", "role#fr"} & client.keys()
    document = {"client_id": client["client_id"], **sent}
    updated = registrar.manage("PUT", client, document).json
    assert updated["client_name#fr"] == "Banque A"
    assert "client_name#es" not in updated


def test_a_statement_joins_an_initial_token(registrar, publisher):
    token = registrar.initial_token("disburse/disburse")
    statement = publisher.sign(scope=None)
    client = registrar.register(
        {"software_statement": statement, "scope": "disburse/disburse"}, token
    ).json
    assert client["scope"] == "disburse/disburse"
    # A statement does not make up for a token that is used up.
    again = registrar.register({"software_statement": statement}, token)
    require_refusal(again, 401, "invalid_token")


def test_a_statement_without_scopes_gives_none(registrar, publisher):
    """Case H89."""
    client = registrar.register({"software_statement": publisher.sign(scope=None)}).json
    assert client["scope"] == ""
    asked = {"software_statement": publisher.sign(scope=None), "scope": "mapper/link"}
    require_refusal(registrar.register(asked), 400, "invalid_client_metadata")


def test_an_update_keeps_the_statement(registrar, publisher):
    statement = publisher.sign(client_name="ERP")
    client = registrar.register({"software_statement": statement}).json
    document = {"client_id": client["client_id"], "client_name": "Other"}
    updated = registrar.manage("PUT", client, document).json
    assert (updated["client_name"], updated["software_statement"]) == ("ERP", statement)
    document |= {"software_statement": publisher.sign(client_name="Mine")}
    refused = registrar.manage("PUT", updated, document)
    require_refusal(refused, 400, "invalid_software_statement")


@pytest.mark.parametrize("other", [[], ["x"], {}, {"payload": "x"}, 7, True, "x"], ids=repr)
def test_an_update_with_anything_else_as_statement_is_refused(registrar, publisher, other: object):
    """RFC 7592, 2.2; Case I106."""
    by_statement = registrar.register({"software_statement": publisher.sign(client_name="A")}).json
    for client in (by_statement, registrar.new()):
        document = {"client_id": client["client_id"], "software_statement": other}
        refused = registrar.manage("PUT", client, document)
        require_refusal(refused, 400, "invalid_software_statement")


def test_an_issuer_that_is_not_approved_is_refused(registrar, publisher):
    for issuer in (OTHER, "https://unknown.example", None, ["x"], ISSUER + "/"):
        answer = registrar.register({"software_statement": publisher.sign(iss=issuer)})
        require_refusal(answer, 400, "unapproved_software_statement")


def test_a_statement_that_is_not_sound_is_refused(registrar, publisher):
    """Case D36. Case D37. Case D46. Case D56."""
    now = int(registrar.protocol.clock().timestamp())
    sound = publisher.sign()
    header, claims, signature = sound.split(".")
    unsound = [
        "a.b.c",
        "",
        7,
        ["x"],
        {"payload": claims},
        f"{header}.{claims}.",
        f"{header}.{claims}.{'A' * len(signature)}",
        jwt.encode({"iss": ISSUER, "scope": "mapper/link"}, None, "none"),
        publisher.sign(alg="HS256", key=publisher.jwks().replace("one", "two") * 2),
        publisher.sign(key=ec.generate_private_key(ec.SECP256R1())),
        publisher.sign(alg="ES384", key=ec.generate_private_key(ec.SECP384R1())),
        publisher.sign(exp=now - 60),
        publisher.sign(exp=float(now + 60)),
        publisher.sign(exp=True),
        publisher.sign(nbf=now + 600),
        publisher.sign(iat=now + 600),
        publisher.sign(aud="https://other.example"),
        publisher.sign(client_name="x" * 20_000),
        # Tokens of the same issuer that are no statements.
        publisher.sign(software_id=None, scope=None, sub="workload"),
        publisher.sign(typ="at+jwt", software_id=None, sub="workload"),
        *(publisher.sign(typ=each) for each in ("application/at+jwt", "dpop+jwt", "logout+jwt")),
    ]
    for statement in unsound:
        answer = registrar.register({"software_statement": statement})
        require_refusal(answer, 400, "invalid_software_statement")
    for statement in (sound, publisher.sign(aud=["x", "https://authz.example"], exp=now + 60)):
        assert registrar.register({"software_statement": statement}).status_code == 201


def test_a_statement_registers_beyond_the_limit_of_its_network(database_url, tmp_path, publisher):
    """All senders may have the address of one proxy."""
    limited = tables(tmp_path, publisher, requests_per_window=1)
    with running_protocol(tmp_path, database_url, **limited) as protocol:
        registrar = Registrar(protocol)
        statements = [publisher.sign(client_name=name) for name in ("A", "B")]
        require_refusal(registrar.register({}), 401, "invalid_token")
        forged = publisher.sign(key=ec.generate_private_key(ec.SECP256R1()))
        for _ in range(10):
            sent = {"software_statement": statements[0]}
            assert registrar.register(sent).status_code == 201
            require_refusal(registrar.register({}), 429, "slow_down")
            refused = registrar.register({"software_statement": forged})
            require_refusal(refused, 429, "slow_down")
            # The statement of a request with a wrong token does not count.
            require_refusal(registrar.register(sent, "wrong"), 429, "slow_down")
        require_refusal(registrar.register(sent), 429, "slow_down")
        assert registrar.register({"software_statement": statements[1]}).status_code == 201


def test_the_statements_of_one_issuer_leave_room_for_others(database_url, tmp_path, publisher):
    """Many registrations at once do not exceed the number either."""
    limited = tables(tmp_path, publisher, maximum_clients=3)
    with running_protocol(tmp_path, database_url, **limited) as protocol:
        registrar, together = Registrar(protocol), threading.Barrier(8)
        sent = {"software_statement": publisher.sign()}

        def register(_number: int) -> int:
            together.wait()
            return registrar.register(sent).status_code

        with ThreadPoolExecutor(8) as threads:
            assert Counter(threads.map(register, range(8))) == {201: 3, 403: 5}
        require_refusal(registrar.register(sent), 403, "access_denied")
        assert registrar.new("mapper/link")["client_id"]
