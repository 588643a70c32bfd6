"""Watches that no token or secret that a test handles appears in what the server writes."""

import base64
import json
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

_SHORTEST = 12


class SecretsWatch:
    """A register of secrets seen, and the search for them in output.

    A secret is looked for in every spelling in which it travels: as is, percent-encoded, in JSON,
    in base64 (as Basic credentials carry it); of a JWT, the claims and the signature by themselves.
    """

    def __init__(self) -> None:
        self._spellings: dict[str, str] = {}

    def note(self, secret: str | bytes, what: str = "secret") -> None:
        """Remember `secret`; `what` names it in a complaint, which never shows the secret."""
        text = secret.decode("latin-1") if isinstance(secret, bytes) else secret
        parts = text.split(".")[1:] if text.startswith("eyJ") and text.count(".") >= 2 else []
        for part in (text, *parts):
            if len(part) >= _SHORTEST:
                self._spellings |= dict.fromkeys(_spellings(part), what)

    def note_basic(self, client_id: str, secret: str) -> None:
        """Remember a client's secret as HTTP Basic credentials carry it."""
        self.note(secret, "client secret")
        for pair in (f"{client_id}:{secret}", f"{quote_plus(client_id)}:{quote_plus(secret)}"):
            self.note(base64.b64encode(pair.encode()).decode(), "basic credentials")

    def find(self, output: str) -> list[str]:
        """Return what of the noted secrets the output holds, by kind and place, never by value."""
        found = []
        for spelling, what in self._spellings.items():
            if (position := output.find(spelling)) >= 0:
                line = output.count("\n", 0, position) + 1
                found.append(f"{what} in line {line}")
        return sorted(found)

    def verify_absent(self, outputs: Iterable[tuple[str, str]]) -> None:
        """Raise AssertionError when any of the (name, text) outputs holds a noted secret."""
        complaints = [f"{name}: {hit}" for name, text in outputs for hit in self.find(text)]
        if complaints:
            raise AssertionError("secrets in the output: " + "; ".join(complaints))


def _spellings(text: str) -> set[str]:
    as_json = json.dumps(text)[1:-1]
    encoded = base64.b64encode(text.encode()).decode().rstrip("=")
    return {text, quote(text, safe=""), quote_plus(text), as_json, repr(text)[1:-1], encoded}
