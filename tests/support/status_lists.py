"""Status lists of the application of a test, as a resource server reads them."""

import json
import zlib
from base64 import urlsafe_b64decode

from authz_server.tokens.status_lists.entries import Entry
from keys.jose.compact import parse_compact
from support.protocol import Protocol

ISSUER = "https://authz.example"


def claims_of(token: str) -> dict:
    """Return the claims of a JWT, not verified."""
    return json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))


def entry_of(token: str) -> Entry:
    """Return the entry that a token names."""
    found = claims_of(token)["status"]["status_list"]
    prefix = f"{ISSUER}/status-lists/"
    assert found["uri"].startswith(prefix)
    return Entry(int(found["uri"].removeprefix(prefix)), found["idx"])


def fetch_list(protocol: Protocol, list_id: int) -> tuple[dict, bytes]:
    """Return the claims of a status list and its statuses."""
    answer = protocol.get(f"/status-lists/{list_id}")
    assert answer.status_code == 200, answer.text
    claims = json.loads(parse_compact(answer.text).payload)
    lst = claims["status_list"]["lst"]
    return claims, zlib.decompress(urlsafe_b64decode(lst + "=" * (-len(lst) % 4)))


def status_of(protocol: Protocol, token: str) -> int:
    """Return the status of a token in its list."""
    list_id, index = entry_of(token)
    _, statuses = fetch_list(protocol, list_id)
    return statuses[index // 4] >> index % 4 * 2 & 3
