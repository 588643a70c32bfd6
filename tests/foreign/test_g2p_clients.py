"""Five G2P clients in use, re-enacted request by request at the address of G2P Connect.

A `Software` builds the request as the program does, with the library that it uses where that is
Python's, and reads the answer as the program does. None sends `timestamp`, none (but OpenSPP2 where
it is told to) names a scope: all rely on the default scopes of their registration.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import httpx
import pytest
import requests
from werkzeug.test import TestResponse

from support.parties import Credentials
from support.protocol import ENDPOINTS, FORM_TYPE, Protocol, require_refusal

ADDRESS = f"https://auth.example{ENDPOINTS['g2p']}"


class Held(NamedTuple):
    """What a program keeps: the `Authorization` of its calls, and how long it uses the token."""

    authorization: str
    lifetime: timedelta | None


class Sent(NamedTuple):
    """A request as it leaves the program."""

    headers: Mapping[str, str]
    body: bytes
    query: str = ""


@dataclass(frozen=True)
class Software:
    """A program: its request, its reading of the answer, and the answer that it needs."""

    request: Callable[..., Sent]
    read: Callable[[TestResponse], Held]
    g2p_answer: str


def fields(client: Credentials) -> dict[str, str]:
    return {
        "grant_type": "client_credentials",
        "client_id": client.id,
        "client_secret": client.secret,
    }


def by_hand(client: Credentials, content_type: str, **headers: str) -> Sent:
    body = "&".join(f"{name}={value}" for name, value in fields(client).items())
    return Sent({"Content-Type": content_type, **headers}, body.encode())


def by_httpx(form: Mapping[str, str], **options: object) -> Sent:
    headers = {"Content-Type": FORM_TYPE}
    with httpx.Client() as client:
        made = client.build_request("POST", ADDRESS, data=form, headers=headers, **options)
    return Sent(made.headers, made.read(), made.url.query.decode())


def g2pc_registry_request(client: Credentials) -> Sent:
    """Java, Unirest 3: `G2pTokenServiceImpl.getToken`. Two headers of its own, and the form."""
    return by_hand(client, FORM_TYPE, **{"Accept-Encoding": "gzip", "User-Agent": "unirest-java"})


def g2pc_registry_reading(answer: TestResponse) -> Held:
    """Reads each member as text, `expires_in` by `Integer.parseInt`: a string or a number.

    A registration chooses default scopes alone.
    """
    seconds = int(str(answer.json["expires_in"]))
    assert answer.json["token_type"]
    return Held(f"Bearer {answer.json['access_token']}", timedelta(seconds=seconds))


def spar_request(client: Credentials) -> Sent:
    """Python, httpx: `OAuthTokenService` of openg2p-g2pconnect-common-lib 1.1.0.

    SPAR's mapper and the G2P Bridge use it.
    """
    return by_httpx(fields(client))


def spar_reading(answer: TestResponse) -> Held:
    """Adds `expires_in` to the time: a string is a TypeError.

    A registration chooses `g2p_answer = "oauth"` and default scopes.
    """
    seconds = answer.json.get("expires_in", 900)
    return Held(f"Bearer {answer.json['access_token']}", timedelta(seconds=seconds))


def importer_request(client: Credentials) -> Sent:
    """Python, requests: `g2p_social_registry_importer` of OpenG2P's programs."""
    made = requests.Request("POST", ADDRESS, data=fields(client)).prepare()
    return Sent({**requests.utils.default_headers(), **made.headers}, made.body.encode())


def importer_reading(answer: TestResponse) -> Held:
    """Repeats `token_type` as the scheme of its calls, and asks for a token for every import.

    A registration chooses default scopes, and `g2p_answer = "oauth"` for resource servers that
    compare `Bearer` letter by letter.
    """
    assert answer.status_code < 400
    return Held(f"{answer.json.get('token_type')} {answer.json.get('access_token')}", None)


def openspp2_request(client: Credentials, scope: str = "", location: str = "data") -> Sent:
    """Python, httpx: `spp_dci_client`. Scope by its setting; credentials in the body by default."""
    form = fields(client) | ({"scope": scope} if scope else {})
    return by_httpx(form) if location == "data" else by_httpx({}, params=form)


def openspp2_reading(answer: TestResponse) -> Held:
    """Adds `expires_in` to the time: a string is a TypeError. Asks again 60 s earlier.

    A registration chooses `g2p_answer = "oauth"`, and default scopes where the setting is empty.
    """
    seconds = answer.json.get("expires_in", 3600)
    return Held(f"Bearer {answer.json['access_token']}", timedelta(seconds=seconds))


def showcase_request(client: Credentials) -> Sent:
    """Java, Spring's RestTemplate: `LoginService.getTokenWithSecrets` of SPDCI's API showcase.

    Its address ends in `/realms/ID/protocol/openid-connect/token`: a proxy rewrites that.
    """
    return by_hand(
        client,
        f"{FORM_TYPE};charset=UTF-8",
        Accept="*/*",
        Connection="keep-alive",
        **{"Accept-Encoding": "gzip, deflate, br"},
    )


def showcase_reading(answer: TestResponse) -> Held:
    """Reads `access_token` alone, and asks for a token for every call.

    A registration chooses default scopes alone.
    """
    return Held(f"Bearer {answer.json['access_token']}", None)


ALL = {
    "g2pc-registry": Software(g2pc_registry_request, g2pc_registry_reading, "document"),
    "spar": Software(spar_request, spar_reading, "oauth"),
    "openg2p-importer": Software(importer_request, importer_reading, "oauth"),
    "openspp2": Software(openspp2_request, openspp2_reading, "oauth"),
    "spdci-showcase": Software(showcase_request, showcase_reading, "document"),
}


@pytest.fixture(params=ALL)
def software(request) -> Software:
    return ALL[request.param]


def ask(protocol: Protocol, client: Credentials, sent: Sent) -> TestResponse:
    assert "timestamp" not in {name.lower() for name in sent.headers}
    protocol.parties.watch.note_form(fields(client))
    return protocol.send(
        "POST",
        ENDPOINTS["g2p"],
        data=sent.body,
        headers=[(name, value) for name, value in sent.headers.items() if name.lower() != "host"],
        query_string=sent.query,
    )


def register(protocol: Protocol, g2p_answer: str | None = None, **values) -> Credentials:
    """Register a client as `client create` does where nothing is chosen but the answer."""
    chosen = {} if g2p_answer is None else {"g2p_answer": g2p_answer}
    return protocol.new_client("client_secret", **chosen, **values)


def verify_usable(protocol: Protocol, held: Held):
    scheme, _, token = held.authorization.partition(" ")
    assert scheme == "Bearer"
    assert held.lifetime in {None, timedelta(seconds=900)}
    answer = protocol.ask("introspect", protocol.demo.mapper, token=token)
    assert (answer.json["active"], answer.json["scope"]) == (True, "mapper/link")


def test_it_gets_a_usable_token_with_the_answer_of_its_registration(protocol: Protocol, software):
    client = register(protocol, software.g2p_answer)
    answer = ask(protocol, client, software.request(client))
    assert answer.status_code == 200, answer.text
    verify_usable(protocol, software.read(answer))


@pytest.mark.parametrize("name", ["g2pc-registry", "spdci-showcase"])
@pytest.mark.parametrize("g2p_answer", [None, "document", "oauth"])
def test_it_reads_either_answer(protocol: Protocol, name: str, g2p_answer: str | None):
    software, client = ALL[name], register(protocol, g2p_answer)
    verify_usable(protocol, software.read(ask(protocol, client, software.request(client))))


@pytest.mark.parametrize("name", ["spar", "openspp2"])
def test_it_cannot_add_the_string_of_the_interface_to_the_time(protocol: Protocol, name: str):
    software, client = ALL[name], register(protocol)
    answer = ask(protocol, client, software.request(client))
    assert answer.json["expires_in"] == "900"
    with pytest.raises(TypeError):
        software.read(answer)


def test_the_importer_repeats_the_type_of_the_interface(protocol: Protocol):
    software, client = ALL["openg2p-importer"], register(protocol)
    held = software.read(ask(protocol, client, software.request(client)))
    scheme, _, token = held.authorization.partition(" ")
    assert scheme == "bearer"
    assert protocol.is_active(token)


def test_a_registration_without_default_scopes_serves_none_of_them(protocol: Protocol, software):
    client = register(protocol, software.g2p_answer, default_scopes=[])
    answer = ask(protocol, client, software.request(client))
    require_refusal(answer, 400, "invalid_scope", "g2p")


def test_openspp2_may_name_its_scopes(protocol: Protocol):
    client = register(protocol, "oauth", default_scopes=[])
    sent = openspp2_request(client, "mapper/link")
    verify_usable(protocol, openspp2_reading(ask(protocol, client, sent)))


def test_openspp2_cannot_send_its_credentials_in_the_query_string(protocol: Protocol):
    client = register(protocol, "oauth")
    answer = ask(protocol, client, openspp2_request(client, location="params"))
    require_refusal(answer, 400, "invalid_request", "g2p")


def test_a_wrong_secret_is_a_refusal_to_each(protocol: Protocol, software):
    client = register(protocol, software.g2p_answer)
    wrong = Credentials(client.id, f"{client.secret}x", client.method)
    require_refusal(ask(protocol, wrong, software.request(wrong)), 401, "invalid_client", "g2p")


def test_where_the_timestamp_is_required_none_gets_a_token(start_protocol):
    protocol = start_protocol(g2p={"timestamp_required": True})
    for software in ALL.values():
        client = register(protocol, software.g2p_answer)
        answer = ask(protocol, client, software.request(client))
        require_refusal(answer, 400, "invalid_request", "g2p")


def test_the_registry_of_g2pc_introspects_and_reads_active_as_text(protocol: Protocol):
    """`G2pTokenServiceImpl.getInterSpectResponse`: the form, and the text `true`."""
    client, mapper = register(protocol), protocol.demo.mapper
    answer = ask(protocol, client, g2pc_registry_request(client))
    token = answer.json["access_token"]
    form = {"token": token, "client_id": mapper.id, "client_secret": mapper.secret}

    def active() -> str:
        return json.dumps(protocol.post("introspect", form).json["active"])

    with protocol.parties.change() as (services, session):
        services.clients.update_resource_server(
            session, mapper.id, actor="operator:tester", authentication_method="client_secret"
        )
    assert active() == "true"
    ended = protocol.post(
        "revoke", {"token": token, "client_id": client.id, "client_secret": client.secret}
    )
    assert ended.status_code == 200
    assert active() == "false"
