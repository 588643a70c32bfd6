"""Verification of access tokens in this process: authz-verifier beside libraries in Python."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median
from time import process_time
from typing import Any

import flask
import jwt as pyjwt
from authlib.integrations.flask_oauth2 import ResourceProtector
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc import jwt as joserfc
from joserfc.jwk import KeySet
from werkzeug.test import EnvironBuilder, run_wsgi_app

from authz_verifier import Request, Verifier
from authz_verifier.algorithms import make_verifier
from authz_verifier.compact import parse_compact
from authz_verifier.flask import protect, requires
from authz_verifier.testing import DEFAULT_AUDIENCE, LocalIssuer
from bench.free_cores import FreeCores
from bench.turns import Plan, Turn, take_rounds

SCOPE = "mapper/link"
ALGORITHMS = ("ES256", "RS256")
SIGNATURE, BARE = "the signature alone", "a view without a guard"
_CALLS = 100
_MICROSECONDS = 1_000_000
_Call = Callable[[], object]


def measure_verifiers(plan: Plan, cores: FreeCores) -> Sequence[Mapping[str, Any]]:
    """Return the groups of what runs in this process: one for each algorithm, and Flask.

    Everything runs in this process, with the keys at hand. Each contender verifies the signature,
    `typ`, `iss`, `aud`, the dates and the scope.
    """
    groups = []
    with ExitStack() as opened:
        for algorithm in ALGORITHMS:
            issuer = opened.enter_context(LocalIssuer(algorithm))
            calls = make_calls(issuer, issuer.token(SCOPE))
            title = f"A token signed with {algorithm}"
            groups.append(_measure(title, calls, SIGNATURE, plan, cores))
        issuer = opened.enter_context(LocalIssuer())
        calls = make_flask_calls(issuer, issuer.token(SCOPE))
        title = "A request to a guarded view of Flask, ES256"
        groups.append(_measure(title, calls, BARE, plan, cores))
    return groups


def make_calls(issuer: LocalIssuer, token: str) -> dict[str, _Call]:
    """Return for each contender a function that verifies a token; it fails if that is refused."""
    verifier = Verifier(issuer.url, DEFAULT_AUDIENCE)
    request = Request("POST", DEFAULT_AUDIENCE, (f"Bearer {token}",))
    key, parsed = issuer.keys[0], parse_compact(token)
    verify = make_verifier(key.public_jwk, key.algorithm)
    return {
        SIGNATURE: partial(verify, parsed.signature, parsed.signing_input),
        "authz-verifier": lambda: verifier.authenticate(request, SCOPE),
        "PyJWT": _by_pyjwt(issuer, token),
        "joserfc": _by_joserfc(issuer, token),
        "Authlib": _by_authlib(issuer, token),
    }


def _by_pyjwt(issuer: LocalIssuer, token: str) -> _Call:
    client = pyjwt.PyJWKClient(f"{issuer.url}/jwks", cache_keys=True)
    algorithm = issuer.keys[0].algorithm
    required = {"require": ["exp", "iat", "iss", "aud", "sub", "client_id", "jti"]}

    def verify() -> bool:
        key = client.get_signing_key_from_jwt(token)
        found = pyjwt.decode_complete(
            token,
            key,
            algorithms=[algorithm],
            audience=DEFAULT_AUDIENCE,
            issuer=issuer.url,
            options=required,
        )
        return found["header"]["typ"] == "at+jwt" and SCOPE in found["payload"]["scope"].split()

    return verify


def _by_joserfc(issuer: LocalIssuer, token: str) -> _Call:
    keys = KeySet.import_key_set({"keys": [issuer.keys[0].public_jwk]})
    algorithm = issuer.keys[0].algorithm
    registry = joserfc.JWTClaimsRegistry(
        iss={"essential": True, "value": issuer.url},
        aud={"essential": True, "value": DEFAULT_AUDIENCE},
        **{name: {"essential": True} for name in ("exp", "iat", "sub", "client_id", "jti")},
    )

    def verify() -> bool:
        found = joserfc.decode(token, keys, algorithms=[algorithm])
        registry.validate(found.claims)
        return found.header["typ"] == "at+jwt" and SCOPE in found.claims["scope"].split()

    return verify


class _Validator(JWTBearerTokenValidator):
    def __init__(self, issuer: LocalIssuer) -> None:
        super().__init__(issuer.url, DEFAULT_AUDIENCE)
        self._keys = KeySet.import_key_set({"keys": [issuer.keys[0].public_jwk]})

    def get_jwks(self) -> KeySet:
        return self._keys


def _by_authlib(issuer: LocalIssuer, token: str) -> _Call:
    validator = _Validator(issuer)

    def verify() -> bool:
        validator.validate_token(validator.authenticate_token(token), [SCOPE], None)
        return True

    return verify


def make_flask_calls(issuer: LocalIssuer, token: str) -> dict[str, _Call]:
    """Return for each contender a function that sends a token to a view of Flask."""
    ours, theirs, bare = (flask.Flask(name) for name in ("ours", "theirs", "bare"))
    protect(ours, Verifier(issuer.url, DEFAULT_AUDIENCE))
    require = ResourceProtector()
    require.register_token_validator(_Validator(issuer))
    environ = EnvironBuilder("/link", headers={"Authorization": f"Bearer {token}"}).get_environ()

    def view() -> dict[str, str]:
        return {"linked": "yes"}

    guards = {ours: requires(SCOPE), theirs: require([SCOPE]), bare: lambda each: each}
    for app, guard in guards.items():
        app.add_url_rule("/link", "link", guard(view))

    def call(app: flask.Flask) -> bool:
        _, status, _ = run_wsgi_app(app, dict(environ))
        return status == "200 OK"

    return {
        BARE: partial(call, bare),
        "authz-verifier's skin": partial(call, ours),
        "Authlib's ResourceProtector": partial(call, theirs),
    }


def _measure(
    title: str, calls: Mapping[str, _Call], floor: str, plan: Plan, cores: FreeCores
) -> dict[str, Any]:
    print(f" {title}:", flush=True)
    turns = [
        Turn(name, [], partial(_repeat, call, 0.1), partial(_repeat, call, plan.seconds))
        for name, call in calls.items()
    ]
    measured = take_rounds(turns, plan.rounds, cores)
    values = {name: [one.value for one in taken] for name, taken in measured.taken.items()}
    rows = []
    for name, found in values.items():
        added = [one - least for one, least in zip(found, values[floor], strict=True)]
        row = {
            "name": name,
            "does": "verifies" if name != BARE else "serves",
            "medians": {
                "processor_microseconds": median(found),
                "added_microseconds": round(median(added), 1),
            },
            "ratios": {
                "floor": median(
                    one / least for one, least in zip(found, values[floor], strict=True)
                )
            },
            "rounds": [{"processor_microseconds": one} for one in found],
        }
        rows.append(row)
    table = {"kind": "verifier", "title": "", "rows": rows, "stopped": dict(measured.stopped)}
    return {"title": title, "tables": [table], "not_measured": {}}


def _repeat(call: _Call, seconds: float) -> float:
    """Return the processor time of a call in microseconds, from calls for some seconds."""
    assert call()
    count, began = 0, process_time()
    while (spent := process_time() - began) < seconds:
        for _ in range(_CALLS):
            call()
        count += _CALLS
    return round(spent / count * _MICROSECONDS, 1)
