"""The properties of docs/connecting.md for clients of Kafka."""

import re

from support.parties import Credentials
from support.printed_settings import Scene
from support.printed_verifiers import replaced
from support.source_tree import ROOT

_ISSUER = "https://auth.example.org"


def librdkafka_properties(scene: Scene, scope: str = "mapper/link") -> dict[str, str]:
    """Return those for librdkafka, filled in for the server of a test and its client."""
    text = _filled(_block("method=oidc"), scene, scope)
    return dict(line.split("=", 1) for line in text.splitlines())


def java_properties(scene: Scene, scope: str = "mapper/link") -> str:
    """Return those for the Java client, filled in likewise."""
    return _filled(_block("OAuthBearerLoginCallbackHandler"), scene, scope)


def _block(part: str) -> str:
    document = (ROOT / "docs" / "connecting.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```properties\n([^`]*)^```$", document, re.MULTILINE)
    (block,) = (each for each in blocks if part in each)
    return block


def _filled(block: str, scene: Scene, scope: str) -> str:
    client: Credentials = scene.demo.basic
    return replaced(
        block,
        (_ISSUER, 1, scene.server.base_url),
        ("ministry", 1, client.id),
        ("SECRET", 1, client.secret),
        ("mapper/link", 1, scope),
    )
