"""Token requests with DPoP proofs."""

from collections.abc import Iterator
from contextlib import contextmanager

from support.claims import claims_of
from support.dpop import ProofKey
from support.parties import Credentials
from support.protocol import ENDPOINTS, Protocol

KEY = ProofKey()


def ask(protocol: Protocol, endpoint: str, caller: Credentials, proof: str, **fields):
    """Request a token with a proof."""
    form = protocol.form(endpoint) | caller.form() | fields
    return protocol.post(endpoint, form, caller.headers() | {"DPoP": proof})


@contextmanager
def one_server(protocol: Protocol) -> Iterator[None]:
    """Leave the twin out: a second server refuses the proof that the first has accepted."""
    twin, protocol.client.twin = protocol.client.twin, None
    yield
    protocol.client.twin = twin


def prove(protocol: Protocol, endpoint: str = "token", key: ProofKey = KEY, **changes) -> str:
    """Return a proof for the endpoint at the application's time, with changes."""
    now = protocol.clock().timestamp()
    return key.prove(now, ENDPOINTS[endpoint], **changes)


def accept(protocol: Protocol, endpoint: str, caller: Credentials, proof: str, **fields):
    """Request a token with a proof that must be accepted; return the response."""
    with one_server(protocol):
        answer = ask(protocol, endpoint, caller, proof, **fields)
    assert answer.status_code == 200, answer.text
    assert answer.json["token_type"] == "DPoP"
    assert claims_of(answer.json["access_token"])["cnf"] == {"jkt": KEY.thumbprint}
    return answer
