"""Running attacks against an API, and judging its responses."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz_verifier.algorithms import load_public_key
from authz_verifier.errors import ConfigurationError
from authz_verifier.probing.attacks import (
    Attack,
    bearer,
    claim_attacks,
    header_attacks,
    hmac_attacks,
    read_sound,
    structure_attacks,
    transport_attacks,
)
from authz_verifier.probing.proofs import proof_attacks
from authz_verifier.probing.sources import TIMEOUT_SECONDS, TokenSource, fetch_metadata
from authz_verifier.signing import SigningKey

Verdict = Literal["refused", "accepted", "lax", "failed"]
#: The statuses of a refusal: RFC 6750, 3.1, and limits of servers for headers.
_REFUSALS = frozenset({400, 401, 403, 413, 414, 431})
_UNAUTHORIZED = 401
_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class Result:
    """The response of an API to one attack.

    Attributes:
        group: the kind of attack.
        name: the attack.
        status: of the response; 0 without one.
        verdict: `refused`; `accepted`: the attack succeeded; `lax`: accepted, but no forgery;
            `failed`: a status of 500 or more, or no response.
        challenged: whether a 401 has the `WWW-Authenticate` that RFC 9110, 15.5.2 requires.
    """

    group: str
    name: str
    status: int
    verdict: Verdict
    challenged: bool


@dataclass(frozen=True, kw_only=True)
class Target:
    """The API to attack.

    Attributes:
        url: an address that needs a token.
        method: of the requests.
        body: sent with each request, as JSON; empty: none.
        issuer: the authorization server, whose public keys are tried as HMAC secrets.
        named: further tokens that the API must refuse, by name.
    """

    url: str
    method: str = "GET"
    body: str = ""
    issuer: str = ""
    named: Mapping[str, str]


def run_probe(target: Target, source: TokenSource) -> list[Result]:
    """Send every attack that the source allows.

    Raises:
        ConfigurationError: the API does not accept the sound token, before or after the attacks.
    """
    with httpx.Client(timeout=TIMEOUT_SECONDS) as client:
        _require_accepted(client, target, source.token())
        results = [_try(client, target, attack) for attack in collect(target, source)]
        _require_accepted(client, target, source.token())
    return results


def collect(target: Target, source: TokenSource) -> Iterator[Attack]:
    """Yield the attacks that the source allows."""
    sound = read_sound(source.token())
    yield from transport_attacks(sound)
    if sound.is_jwt:
        yield from structure_attacks(sound)
        yield from header_attacks(sound)
        yield from claim_attacks(sound, None)
        yield from hmac_attacks(sound, _hmac_secrets(target, source))
        if source.signer is not None:
            yield from claim_attacks(sound, source.signer)
    for name, token in target.named.items():
        yield bearer("named", name, token)
    if revoked := source.revoked_token():
        yield bearer("revocation", "revoked a moment ago", revoked)
    key = SigningKey("ES256")
    if bound := source.bound_token(key):
        url = target.url.partition("?")[0]
        yield from proof_attacks(key, target.method, url, bound)


def _require_accepted(client: httpx.Client, target: Target, token: str) -> None:
    if not token:
        raise ConfigurationError("--token-from gave no token")
    try:
        response = _send(client, target, (("Authorization", f"Bearer {token}"),))
    except httpx.HTTPError as error:
        raise ConfigurationError(f"{target.url}: {error}") from error
    if not response.is_success:
        raise ConfigurationError(
            f"{target.url} answered {response.status_code} to the sound token; a probe needs a "
            "request that succeeds (see --method, --body, --scope)"
        )


def _try(client: httpx.Client, target: Target, attack: Attack) -> Result:
    try:
        if attack.before:
            _send(client, target, attack.before)
        response = _send(client, target, attack.headers, attack.query, attack.form)
    except httpx.HTTPError:
        return Result(attack.group, attack.name, 0, "failed", challenged=False)
    status = response.status_code
    challenged = status != _UNAUTHORIZED or "www-authenticate" in response.headers
    return Result(attack.group, attack.name, status, _judge(attack, status), challenged)


def _judge(attack: Attack, status: int) -> Verdict:
    if status in _REFUSALS:
        return "refused"
    if status >= _SERVER_ERROR:
        return "failed"
    return "lax" if attack.advisory else "accepted"


def _send(
    client: httpx.Client,
    target: Target,
    headers: Sequence[tuple[str, str]],
    query: str = "",
    form: str = "",
) -> httpx.Response:
    url = f"{target.url}{'&' if '?' in target.url else '?'}{query}" if query else target.url
    content, sent = target.body, list(headers)
    if form:
        content = form
        sent.append(("Content-Type", "application/x-www-form-urlencoded"))
    elif content:
        sent.append(("Content-Type", "application/json"))
    return client.request(target.method, url, headers=sent, content=content or None)


def _hmac_secrets(target: Target, source: TokenSource) -> dict[str, bytes]:
    """Return the issuer's public keys in the forms that a confused verifier may use."""
    jwks = [source.signer.public_jwk] if source.signer else _published_keys(target.issuer)
    secrets: dict[str, bytes] = {}
    for number, jwk in enumerate(jwks, 1):
        secrets[f"JWK {number}"] = json.dumps(jwk).encode()
        secrets[f"compact JWK {number}"] = json.dumps(jwk, separators=(",", ":")).encode()
        key = load_public_key(jwk)
        for form, encoding in (("PEM", Encoding.PEM), ("DER", Encoding.DER)):
            data = key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
            secrets[f"{form} {number}"] = data
    return secrets


def _published_keys(issuer: str) -> list[dict[str, Any]]:
    if not issuer:
        return []
    url = fetch_metadata(issuer)["jwks_uri"]
    keys: list[dict[str, Any]] = httpx.get(url, timeout=TIMEOUT_SECONDS).json()["keys"]
    return [jwk for jwk in keys if jwk.get("kty") in {"EC", "RSA", "OKP"}]
