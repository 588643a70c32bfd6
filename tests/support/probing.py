"""`authz-verifier probe` with the key of a server, against an API of that server."""

import json
import re
from pathlib import Path

from authz_verifier.cli import main
from authz_verifier.probing.attacks import read_sound
from support.parties import RESOURCE_SERVERS
from support.printed_settings import Scene
from support.signing_key import write_signing_key
from support.source_tree import ROOT

#: How the table of docs/connecting.md names the token that was revoked.
REVOKED = "revoked a moment ago"


def probe(scene: Scene, url: str, folder: Path, method: str = "GET") -> set[str]:
    """Send every hostile token to an API; return the attacks that it did not refuse, by name."""
    key, revoked, report = (folder / name for name in ("key.pem", "revoked", "report.json"))
    token = scene.token("mapper/link")
    kid = read_sound(token).header["kid"]
    write_signing_key(scene.server.settings_path, kid, key)
    scene.revoke(token)
    revoked.write_text(token)
    status = main(
        [
            *("probe", url, "--method", method, "--issuer", scene.server.base_url),
            # In one word: an id may begin with a hyphen.
            *("--token-from", f"key:{key}", f"--kid={kid}"),
            *("--audience", RESOURCE_SERVERS["mapper"], "--scope", "mapper/link"),
            *("--refused", f"{REVOKED}=file:{revoked}"),
            *("--format", "json", "--output", str(report)),
        ]
    )
    assert status in {0, 1}
    attacks = json.loads(report.read_text())["attacks"]
    assert len(attacks) > 250
    return {f"{each['group']}: {each['name']}" for each in attacks if each["verdict"] != "refused"}


def documented(verifier: str) -> set[str]:
    """Return the attacks that docs/connecting.md says a verifier lets through."""
    text = (ROOT / "docs" / "connecting.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Hostile tokens\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE))
    return set(re.findall(r"`([^`]+)`", rows[verifier]))
