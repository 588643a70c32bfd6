"""Watches that no token or secret that a test handles appears in what the server writes."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

_SHORTEST = 12
#: From so many spellings, one pass over the output for their openings costs less than all searches.
_MANY = 1_000


class SecretsWatch:
    """A register of secrets seen, and the search for them in output.

    A secret is looked for in every spelling in which it travels: as is, percent-encoded, in JSON,
    in base64 (as Basic credentials carry it); of a JWT, the claims and the signature by themselves.
    """

    def __init__(self) -> None:
        self._spellings: dict[str, str] = {}
        self._files: list[Path] = []

    def watch_file(self, path: Path) -> None:
        """Search this file too when the test ends: a server's output, an audit trail."""
        self._files.append(path)

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

    def note_answer(self, answer: object) -> None:
        """Remember what a token endpoint handed out."""
        if isinstance(answer, dict) and isinstance(answer.get("access_token"), str):
            self.note(answer["access_token"], "access token")

    def note_form(self, form: Mapping[str, object]) -> None:
        """Remember the secrets and tokens in a form that is about to be sent."""
        for name in ("client_secret", "token", "client_assertion"):
            if isinstance(value := form.get(name), str):
                self.note(value, name)

    def outputs(self) -> Iterator[tuple[str, str]]:
        """Yield name and text of every watched file that exists."""
        for path in self._files:
            if path.exists():
                yield path.name, path.read_text(errors="replace")

    def find(self, output: str) -> list[str]:
        """Return what of the noted secrets the output holds, by kind and place, never by value."""
        found = []
        for spelling, what in self._suspects(output):
            if (position := output.find(spelling)) >= 0:
                line = output.count("\n", 0, position) + 1
                found.append(f"{what} in line {line}")
        return sorted(found)

    def _suspects(self, output: str) -> list[tuple[str, str]]:
        """Return the spellings that the output may hold: of many, those whose opening it holds."""
        spellings = list(self._spellings.items())
        if len(spellings) < _MANY:
            return spellings
        openings = {spelling[:_SHORTEST] for spelling, _ in spellings}
        windows = (output[at : at + _SHORTEST] for at in range(len(output) - _SHORTEST + 1))
        met = {window for window in windows if window in openings}
        return [(spelling, what) for spelling, what in spellings if spelling[:_SHORTEST] in met]

    def verify_absent(self, outputs: Iterable[tuple[str, str]]) -> None:
        """Raise AssertionError when any of the (name, text) outputs holds a noted secret."""
        complaints = [f"{name}: {hit}" for name, text in outputs for hit in self.find(text)]
        if complaints:
            raise AssertionError("secrets in the output: " + "; ".join(complaints))


def _spellings(text: str) -> set[str]:
    as_json = json.dumps(text)[1:-1]
    encoded = base64.b64encode(text.encode()).decode().rstrip("=")
    return {text, quote(text, safe=""), quote_plus(text), as_json, repr(text)[1:-1], encoded}
