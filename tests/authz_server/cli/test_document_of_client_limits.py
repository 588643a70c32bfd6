"""The commands of docs/client-limits.md, as printed."""

import re
import shlex

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from support.documents import shell_blocks
from support.source_tree import ROOT

DOCUMENT = "docs/client-limits.md"


def test_the_commands_of_the_document(stocked, tmp_path, monkeypatch):
    """Cases H88, T281 to T284, T286."""
    stocked.must("client", "create", "ministry", "--name", "Ministry", "--scope", "disburse/*")
    public = Ed25519PrivateKey.generate().public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "partner-key.pem").write_bytes(pem)
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "partner-encryption-key.pem").write_bytes(pem)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "partner-private-key.pem").write_bytes(pem)
    monkeypatch.chdir(tmp_path)
    printed = "".join(shell_blocks(DOCUMENT, dialect="sqlite"))
    commands = re.findall(r"^authz-server (.*(?:\n  .*)*)", printed, re.MULTILINE)
    assert len(commands) == 9
    for command in commands:
        stocked.must(*shlex.split(command))
    properties = stocked.json("client", "show", "ministry")["properties"]
    assert properties.keys() == {
        *("allowed_networks", "payment_windows", "token_budget"),
        *("sender_id", "message_key_thumbprint"),
    }
    assert len(stocked.json("client", "secret", "list", "ministry")) == 3
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    program = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[-1]
    names: dict[str, str] = {}
    exec(compile(program, "document", "exec"), names)  # noqa: S102 - the project's own document
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", names["secret"])
