"""Hostile DPoP proofs for a token that is bound to the probe's key (RFC 9449)."""

import json
import time
from collections.abc import Iterator
from typing import Any

from authz_verifier.probing.attacks import Attack, segment
from authz_verifier.signing import SigningKey
from authz_verifier.testing import proof

GROUP = "proof"


def proof_attacks(key: SigningKey, method: str, url: str, token: str) -> Iterator[Attack]:
    """Yield requests with a bound token and a missing or wrong proof.

    Args:
        key: the key that the token is bound to.
        method: of the requests.
        url: of the API, without query.
        token: a bound token that the API accepts.
    """
    scheme = ("Authorization", f"DPoP {token}")
    sound = proof(key, method, url, token)
    yield Attack(GROUP, "bound token as a bearer token", (("Authorization", f"Bearer {token}"),))
    yield Attack(
        GROUP,
        "bound token as a bearer token with a proof",
        (("Authorization", f"Bearer {token}"), ("DPoP", sound)),
    )
    yield Attack(
        GROUP, "replayed proof", (scheme, ("DPoP", sound)), before=(scheme, ("DPoP", sound))
    )
    yield Attack(GROUP, "no proof", (scheme,))
    yield Attack(GROUP, "empty proof", (scheme, ("DPoP", "")))
    first, second = proof(key, method, url, token), proof(key, method, url, token)
    yield Attack(GROUP, "two proofs", (scheme, ("DPoP", first), ("DPoP", second)))
    yield Attack(GROUP, "two proofs in a header", (scheme, ("DPoP", f"{first}, {second}")))
    yield Attack(GROUP, "the token as proof", (scheme, ("DPoP", token)))
    other = SigningKey("ES256")
    yield Attack(
        GROUP, "proof of another key", (scheme, ("DPoP", proof(other, method, url, token)))
    )
    for name, changes in _changes(key, method, url).items():
        made = proof(key, method, url, token, **changes)
        yield Attack(GROUP, name, (scheme, ("DPoP", made)))
    for name, text in _bent(key, sound):
        yield Attack(GROUP, name, (scheme, ("DPoP", text)))


def _changes(key: SigningKey, method: str, url: str) -> dict[str, dict[str, Any]]:
    now = int(time.time())
    other = SigningKey("ES256").bare_jwk
    return {
        "other method": {"htm": "DELETE" if method != "DELETE" else "GET"},
        "method in lower case": {"htm": method.lower()},
        "no method": {"htm": None},
        "other path": {"htu": f"{url}/other"},
        "other host": {"htu": "https://attacker.invalid/"},
        "host with a suffix": {"htu": url.replace("://", "://attacker.invalid/", 1)},
        "other scheme": {"htu": url.replace("http", "ftp", 1)},
        "no URL": {"htu": None},
        "URL as a list": {"htu": [url]},
        "path alone": {"htu": "/"},
        "no ath": {"ath": None},
        "ath of another token": {"ath": "A" * 43},
        "empty ath": {"ath": ""},
        "an hour old": {"iat": now - 3_600},
        "from the next hour": {"iat": now + 3_600},
        "from 1970": {"iat": 0},
        "time as text": {"iat": str(now)},
        "time as a boolean": {"iat": True},
        "no time": {"iat": None},
        "no jti": {"jti": None},
        "empty jti": {"jti": ""},
        "jti as a number": {"jti": 7},
        "typ JWT": {"header": {"typ": "JWT"}},
        "typ at+jwt": {"header": {"typ": "at+jwt"}},
        "no typ": {"header": {"typ": None}},
        "no jwk": {"header": {"jwk": None}},
        "jwk of another key": {"header": {"jwk": other}},
        "private jwk": {"header": {"jwk": key.bare_jwk | {"d": "A" * 43}}},
        "symmetric jwk": {"header": {"jwk": {"kty": "oct", "k": "AAAA"}}},
        "jwk as text": {"header": {"jwk": json.dumps(key.bare_jwk)}},
        "kid in place of jwk": {"header": {"jwk": None, "kid": "x"}},
        "alg none": {"header": {"alg": "none"}},
        "alg HS256": {"header": {"alg": "HS256"}},
        "crit": {"header": {"crit": ["x"], "x": 1}},
    }


def _bent(key: SigningKey, sound: str) -> Iterator[tuple[str, str]]:
    first, second, third = sound.split(".")
    yield "stripped signature", f"{first}.{second}."
    yield "signature of zeros", f"{first}.{second}.{'A' * 86}"
    yield "changed payload", f"{first}.{segment({'jti': 'x'})}.{third}"
    yield "two segments", f"{first}.{second}"
    yield (
        "unsigned",
        f"{segment({'typ': 'dpop+jwt', 'alg': 'none', 'jwk': key.bare_jwk})}.{second}.",
    )
