"""No secret and no token in anything that a server at debug level writes, whatever is sent."""

import secrets
from urllib.parse import quote

import httpx
import pytest

from support.edge import ENDPOINTS, ServerFixture
from support.raw_http import exchange
from support.secrets_watch import SecretsWatch


@pytest.fixture(scope="module")
def sender():
    """A client without connections kept: making one reads the certificates of the machine."""
    with httpx.Client(limits=httpx.Limits(max_keepalive_connections=0)) as client:
        yield client


def invented(watch: SecretsWatch) -> str:
    """Return a secret that nobody has, noted all the same: it may be a mistyped real one."""
    secret = secrets.token_urlsafe(32)
    watch.note_basic("client-basic", secret)
    watch.note(secret)
    return secret


def require_silence(edge: ServerFixture, watch: SecretsWatch) -> None:
    log = edge.server.log()
    assert log, "the server says nothing at all"
    watch.verify_absent([("server log", log), ("audit trail", edge.audit_trail())])


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("method", ["client_secret_post", "client_secret_basic"])
def test_what_is_sent_rightly_or_wrongly_is_not_written(
    edge: ServerFixture, sender: httpx.Client, endpoint: str, method: str
):
    """Case K122."""
    watch = SecretsWatch()
    party = edge.demo.clients[method]
    watch.note_basic(party.id, party.secret)
    form = edge.form(endpoint) if endpoint != "token" else {"grant_type": "client_credentials"}
    form |= {"scope": "mapper/link"} if endpoint == "token" else {}
    watch.note_form(form)
    url = edge.server.base_url + ENDPOINTS[endpoint]
    answer = sender.post(url, data=form | party.form(), headers=party.headers())
    assert answer.status_code == 200, answer.text
    watch.note_answer(answer.json() if answer.content else None)
    wrong = type(party)(party.id, invented(watch), method)
    answer = sender.post(url, data=form | wrong.form(), headers=wrong.headers())
    assert answer.status_code == 401
    require_silence(edge, watch)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_what_is_sent_in_the_wrong_place_is_not_written(
    edge: ServerFixture, sender: httpx.Client, endpoint: str
):
    """Case K122."""
    watch = SecretsWatch()
    secret = invented(watch)
    url = edge.server.base_url + ENDPOINTS[endpoint]
    requests = [
        lambda: sender.post(f"{url}?client_secret={quote(secret)}&token={quote(secret)}"),
        lambda: sender.get(f"{url}?client_secret={quote(secret)}"),
        lambda: sender.post(f"{url}/{quote(secret)}"),
        lambda: sender.post(url, json={"client_secret": secret}),
        lambda: sender.post(url, data={"token_type_hint": secret, "scope": secret}),
        lambda: sender.post(url, data={"client_id": "nobody", "client_secret": secret}),
        lambda: sender.post(url, headers={"Authorization": f"Bearer {secret}"}),
        lambda: sender.post(url, headers={"Authorization": f"Basic {secret}"}),
        lambda: sender.post(url, headers={"Cookie": f"session={secret}", "X-Api-Key": secret}),
        lambda: sender.post(url, headers={"User-Agent": f"curl client_secret={secret}"}),
        lambda: sender.post(url, files={"client_secret": secret.encode()}),
        lambda: sender.request("TRACE", url, headers={"Authorization": f"Bearer {secret}"}),
    ]
    for request in requests:
        assert 400 <= request().status_code < 500
    head, form = edge.request(endpoint, harmless=True)
    broken = head + f"X-Token : {secret}\r\n".encode() + b"\r\n" + form
    assert exchange(edge.port, broken)[0].status == 400
    require_silence(edge, watch)
