"""Running attacks against an API, and judging its responses."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from authz_verifier.probing.sources import SourceOptions, TokenSource, fetch_metadata
from authz_verifier.signing import SigningKey

Verdict = Literal["refused", "accepted", "lax", "failed"]
_UNAUTHORIZED = 401
_SERVER_ERROR = 500
#: Statuses that concern no token: the API did not judge it.
_UNDECIDED = frozenset({408, 425, 429})
#: A short body is read, so that the connection is kept.
_READ_BYTES = 65_536
#: The probe ends after this number of attacks in a row without a response.
_MAXIMUM_SILENT = 5


@dataclass(frozen=True, slots=True)
class Result:
    """The response of an API to one attack.

    Attributes:
        group: the kind of attack.
        name: the attack.
        status: of the response; 0 without one.
        verdict: `refused`; `accepted`: the attack succeeded, with a status of 200 to 299; `lax`:
            accepted, but no forgery; `failed`: a status of 500 or more, 408, 425 or 429, or no
            response.
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
        options: the authorization server, whose public keys are tried as HMAC secrets, and
            how requests are sent.
        named: further tokens that the API must refuse, by name.
    """

    url: str
    method: str = "GET"
    body: str = ""
    options: SourceOptions = field(default_factory=SourceOptions)
    named: Mapping[str, str]


def run_probe(target: Target, source: TokenSource) -> list[Result]:
    """Send every attack that the source allows; fewer if the API ceases to respond.

    Raises:
        ConfigurationError: the API does not accept the sound token, before or after the attacks,
            or a token of `named` cannot be presented.
    """
    for name, token in target.named.items():
        _require_token(token, f"--refused {name}")
    results: list[Result] = []
    with target.options.new_client() as client:
        _require_accepted(client, target, source.token())
        for attack in collect(target, source):
            results.append(_try(client, target, attack))
            if has_ceased(results):
                return results
        _require_accepted(client, target, source.token())
    return results


def has_ceased(results: Sequence[Result]) -> bool:
    """Return whether the last attacks got no response, so that the probe ended early."""
    last = results[-_MAXIMUM_SILENT:]
    return len(last) == _MAXIMUM_SILENT and not any(each.status for each in last)


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
    _require_token(token, "--token-from")
    try:
        status, _ = _send(client, target, (("Authorization", f"Bearer {token}"),))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise ConfigurationError(f"{target.url}: {reason}") from error
    if not httpx.codes.is_success(status):
        raise ConfigurationError(
            f"{target.url} answered {status} to the sound token; a probe needs a "
            "request that succeeds (see --method, --body, --scope)"
        )


def _require_token(token: str, option: str) -> None:
    # Without one, a request would be refused for the lack of it.
    if not (token and token.isascii() and token.isprintable()):
        raise ConfigurationError(f"{option} gave no token")


def _try(client: httpx.Client, target: Target, attack: Attack) -> Result:
    try:
        if attack.before:
            _send(client, target, attack.before)
        status, challenged = _send(client, target, attack.headers, attack.query, attack.form)
    except httpx.HTTPError:
        return Result(attack.group, attack.name, 0, "failed", challenged=False)
    return Result(attack.group, attack.name, status, _judge(attack, status), challenged)


def _judge(attack: Attack, status: int) -> Verdict:
    if status >= _SERVER_ERROR or status in _UNDECIDED:
        return "failed"
    if not httpx.codes.is_success(status):
        # The sound token succeeds with the same request, so that the token was refused.
        return "refused"
    return "lax" if attack.advisory else "accepted"


def _send(
    client: httpx.Client,
    target: Target,
    headers: Sequence[tuple[str, str]],
    query: str = "",
    form: str = "",
) -> tuple[int, bool]:
    """Return the status, and whether a 401 has a challenge; the body is not read."""
    url = f"{target.url}{'&' if '?' in target.url else '?'}{query}" if query else target.url
    content, sent = target.body, list(headers)
    if form:
        content = form
        sent.append(("Content-Type", "application/x-www-form-urlencoded"))
    elif content:
        sent.append(("Content-Type", "application/json"))
    with client.stream(target.method, url, headers=sent, content=content or None) as response:
        status = response.status_code
        if int(response.headers.get("content-length", "-1")) in range(_READ_BYTES):
            response.read()
        return status, status != _UNAUTHORIZED or "www-authenticate" in response.headers


def _hmac_secrets(target: Target, source: TokenSource) -> dict[str, bytes]:
    """Return the issuer's public keys in the forms that a confused verifier may use."""
    jwks = [source.signer.public_jwk] if source.signer else _published_keys(target.options)
    secrets: dict[str, bytes] = {}
    for number, jwk in enumerate(jwks, 1):
        secrets[f"JWK {number}"] = json.dumps(jwk).encode()
        secrets[f"compact JWK {number}"] = json.dumps(jwk, separators=(",", ":")).encode()
        try:
            key = load_public_key(jwk)
        except ValueError:
            continue
        for form, encoding in (("PEM", Encoding.PEM), ("DER", Encoding.DER)):
            data = key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
            secrets[f"{form} {number}"] = data
    return secrets


def _published_keys(options: SourceOptions) -> list[dict[str, Any]]:
    if not options.issuer:
        return []
    url = fetch_metadata(options)["jwks_uri"]
    try:
        with options.new_client() as client:
            keys: list[dict[str, Any]] = client.get(url).json()["keys"]
        return [jwk for jwk in keys if jwk.get("kty") in {"EC", "RSA", "OKP"}]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
        raise ConfigurationError(f"the keys of {options.issuer}: {error}") from error
