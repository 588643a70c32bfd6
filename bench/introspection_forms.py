"""Introspection alone, signed, encrypted and in batches: processor time for each token."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any
from urllib.parse import urlencode

from joserfc.jwk import ECKey
from werkzeug.test import Client

from authz_server.app import EXTENSION, create_app
from authz_server.assembly.server import ServerServices
from authz_server.endpoints.introspection import JWT_TYPE
from authz_server.settings import load_settings
from bench.registered import ACTOR, SCOPE, Registered, prepare, write_settings
from bench.turns import Plan

#: The sizes of batches.
SIZES = (10, 100)
_TOKENS = 500
_ONE, _BATCH = "/oauth2/introspect", "/oauth2/introspect/batch"
_Ask = Callable[[Sequence[str]], None]


def measure_introspection_forms(directory: Path, plan: Plan) -> Sequence[Mapping[str, Any]]:
    """Return the result of the part: one table, with a line for each form.

    The application is called in this process, on SQLite: no connection or HTTP server counts.
    """
    url = f"sqlite:///{directory}/forms.sqlite"
    path = write_settings(directory, url, 8080, 8081, workers=1)
    registered = prepare(path)
    app = create_app(load_settings(path))
    services: ServerServices = app.extensions[EXTENSION]
    services.feed.poll()
    caller = _Caller(Client(app), registered)
    tokens = [caller.new_token() for _ in range(_TOKENS)]
    forms: dict[str, tuple[int, _Ask]] = {
        "alone": (1, caller.ask_one),
        "alone, signed": (1, caller.ask_signed),
        **{f"batch of {size}": (size, caller.ask_batch) for size in SIZES},
    }
    rows = [_measure(name, *form, tokens, plan.rounds) for name, form in forms.items()]
    _encrypt_responses(services, registered.resource_server_id)
    encrypted = "alone, signed and encrypted"
    rows.append(_measure(encrypted, 1, caller.ask_signed, tokens, plan.rounds))
    services.maintenance.stop()
    table = {"kind": "forms", "title": "", "rows": rows, "stopped": {}}
    return [{"title": "", "tables": [table], "not_measured": {}}]


class _Caller:
    """A resource server that asks about tokens of the client."""

    def __init__(self, client: Client, registered: Registered) -> None:
        self._client = client
        self._registered = registered
        self._auth = (registered.resource_server_id, registered.resource_server_secret)

    def new_token(self) -> str:
        """Return a new token."""
        form = {
            "grant_type": "client_credentials",
            "scope": SCOPE,
            "client_id": self._registered.client_id,
            "client_secret": self._registered.client_secret,
        }
        answer = self._client.post("/oauth2/token", data=form).get_json()
        return str(answer["access_token"])

    def ask_one(self, tokens: Sequence[str], headers: Mapping[str, str] | None = None) -> None:
        """Ask about one token."""
        form = {"token": tokens[0]}
        answer = self._client.post(_ONE, data=form, auth=self._auth, headers=headers or {})
        assert answer.status_code == 200

    def ask_signed(self, tokens: Sequence[str]) -> None:
        """Ask about one token by a signed response."""
        self.ask_one(tokens, {"Accept": JWT_TYPE})

    def ask_batch(self, tokens: Sequence[str]) -> None:
        """Ask about several tokens."""
        answer = self._client.post(
            _BATCH,
            data=urlencode([("token", each) for each in tokens]),
            content_type="application/x-www-form-urlencoded",
            auth=self._auth,
        )
        assert all(each["active"] for each in answer.get_json()["responses"])


def _encrypt_responses(services: ServerServices, server_id: str) -> None:
    key = ECKey.generate_key("P-256").as_dict(private=False) | {"use": "enc"}
    properties = {
        "jwks": {"keys": [key]},
        "introspection_encrypted_response_alg": "ECDH-ES",
        "introspection_encrypted_response_enc": "A256GCM",
    }
    with services.database.transaction() as session:
        services.clients.update_resource_server(
            session, server_id, actor=ACTOR, properties=properties
        )
    services.feed.poll()


def _measure(
    name: str, size: int, ask: _Ask, tokens: Sequence[str], rounds: int
) -> Mapping[str, Any]:
    ask(tokens[:size])
    taken = []
    for _ in range(rounds):
        began = process_time()
        for at in range(0, len(tokens), size):
            ask(tokens[at : at + size])
        microseconds = (process_time() - began) / len(tokens) * 1_000_000
        taken.append({"tokens": float(size), "processor_microseconds": microseconds})
    medians = {each: median(one[each] for one in taken) for each in taken[0]}
    print(f" {name}: {medians['processor_microseconds']:.0f} µs for each token", flush=True)
    return {"name": name, "does": "", "medians": medians, "ratios": {}, "rounds": taken}
