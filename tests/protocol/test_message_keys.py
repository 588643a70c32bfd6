"""The check of messages in docs/client-limits.md, with tokens of two partners."""

import base64
import json
import re
import time
from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keys.jose.jwk import public_jwk
from support.claims import claims_of
from support.protocol import Protocol
from support.source_tree import ROOT

DOCUMENT = "docs/client-limits.md"


class Partner:
    """A partner that signs its messages, and what it has published."""

    def __init__(self, sender_id: str) -> None:
        self.sender_id = sender_id
        self.key = Ed25519PrivateKey.generate()
        self.key_id = f"{sender_id}|key-1|ed25519"

    @property
    def public_key(self) -> Ed25519PublicKey:
        return self.key.public_key()

    def message(self, check: Mapping, *, sender_id: str = "", valid_seconds: int = 300) -> dict:
        """Return a signed message, as the resource server receives it."""
        header = {"sender_id": sender_id or self.sender_id, "message_id": "1", "total_count": 1}
        body = {"header": header, "message": {"transaction_id": "9", "amount": "100.00"}}
        created = int(time.time())
        expires = created + valid_seconds
        signed = self.key.sign(check["signing_string"](body, str(created), str(expires)))
        value = base64.b64encode(signed).decode()
        body["signature"] = (
            f'Signature: namespace="g2p", kidId="{self.key_id}", algorithm="ed25519", '
            f'created="{created}", expires="{expires}", headers="(created) (expires) digest", '
            f'signature="{value}"'
        )
        return json.loads(json.dumps(body))


@pytest.fixture(scope="module")
def check() -> Mapping:
    """The names of the module in the document."""
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    code, *_ = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(compile(code, DOCUMENT, "exec"), names)  # noqa: S102 - the module as printed
    return names


@pytest.fixture(scope="module", params=["introspection", "JWT"])
def tokens(request, protocol: Protocol) -> dict[str, dict]:
    """The claims of a token of each partner, and of one without a message key."""
    found = {}
    for name, partner in PARTNERS.items():
        properties = {
            "sender_id": partner.sender_id,
            "message_key_thumbprint": public_jwk(partner.public_key),
        }
        token = protocol.new_token(protocol.new_client(properties=properties))
        found[name] = token
    found["nobody"] = protocol.new_token()
    if request.param == "JWT":
        return {name: claims_of(token) for name, token in found.items()}
    mapper = protocol.demo.mapper
    return {
        name: protocol.ask("introspect", mapper, token=token).json for name, token in found.items()
    }


PARTNERS = {"A": Partner("a.example.org"), "B": Partner("b.example.org")}
KEYS = {partner.key_id: partner.public_key for partner in PARTNERS.values()}


def test_a_partner_sends_its_own_message(check: Mapping, tokens: dict[str, dict]):
    """Case T284."""
    for name, partner in PARTNERS.items():
        check["check_message"](tokens[name], partner.message(check), KEYS)


def test_partner_a_cannot_send_a_message_that_partner_b_signed(
    check: Mapping, tokens: dict[str, dict]
):
    """Neither as it is, nor under its own name, nor with a key of its own. Case T284."""
    a, b = PARTNERS.values()
    stolen = b.message(check)
    renamed = json.loads(json.dumps(stolen).replace("b.example.org|", "a.example.org|"))
    as_a = b.message(check, sender_id=a.sender_id)
    claimed = json.loads(json.dumps(as_a).replace("b.example.org|", "a.example.org|"))
    changed = a.message(check)
    changed["message"]["amount"] = "100000.00"
    unsigned = a.message(check) | {"signature": ""}
    late = a.message(check, valid_seconds=0)
    for body in (stolen, renamed, as_a, claimed, changed, unsigned, late):
        with pytest.raises(check["RefusedMessage"]):
            check["check_message"](tokens["A"], body, KEYS)
    # A directory that gives A's name the key of B: the token names the key itself.
    mixed = KEYS | {a.key_id: b.public_key}
    with pytest.raises(check["RefusedMessage"], match="not the one that the token names"):
        check["check_message"](tokens["A"], claimed, mixed)


def test_a_token_without_a_message_key_is_refused(check: Mapping, tokens: dict[str, dict]):
    """Case T284."""
    with pytest.raises(check["RefusedMessage"]):
        check["check_message"](tokens["nobody"], PARTNERS["A"].message(check), KEYS)
