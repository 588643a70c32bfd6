"""A verifier in a process of its own, which knows the JWKS's address and nothing else of ours.

Usage: python -m rotation_demo.verifier LIBRARY ISSUER AUDIENCE JWKS_URL...

It keeps a JWKS for exactly as long as its max-age says and never asks earlier, not even for a key
that it does not know. Several addresses, one for each node, are asked in turn, as behind a load
balancer. Tokens come in as lines of JSON; each is verified at once and again and again until
shortly before it expires. What happened goes out as lines of JSON.
"""

import heapq
import json
import re
import select
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any
from urllib.request import urlopen

ALGORITHM = "ES256"
AGAIN_SECONDS = 0.5
#: No check begins later than so long before the token expires: a late one would prove nothing.
MARGIN_SECONDS = 0.4
REPORT_SECONDS = 0.25
#: So often a withdrawn key's token is tried, to see until when it is accepted.
PROBE_SECONDS = 0.03
_MAXIMUM_AGE = re.compile(r"max-age=(\d+)")


class JwksCache:
    """The JWKS as last fetched.

    Args:
        urls: Where it is, asked in turn.
        read: Makes the library's own key set of the document.
    """

    def __init__(self, urls: Sequence[str], read: Callable[[dict[str, Any]], Any]) -> None:
        self._urls = cycle(urls)
        self._read = read
        self._keys: Any = None
        self._stale_at = 0.0
        self.fetches = 0

    def keys(self) -> Any:  # noqa: ANN401 - each library has its own
        """Return the key set, fetched anew only where it is older than it may be."""
        if time.monotonic() >= self._stale_at:
            with urlopen(next(self._urls), timeout=10) as answer:  # noqa: S310 - http on loopback
                document = json.load(answer)
                age = _MAXIMUM_AGE.search(answer.headers["Cache-Control"])
            if age is None:
                raise RuntimeError("the JWKS came without a max-age")
            self._keys = self._read(document)
            self._stale_at = time.monotonic() + int(age[1])
            self.fetches += 1
        return self._keys


Verify = Callable[[str], None]


def with_pyjwt(urls: Sequence[str], issuer: str, audience: str) -> tuple[JwksCache, Verify]:
    """Return the cache, and what raises for a token that PyJWT refuses."""
    import jwt  # noqa: PLC0415 - each process loads one library

    cache = JwksCache(urls, jwt.PyJWKSet.from_dict)

    def verify(token: str) -> None:
        key = cache.keys()[jwt.get_unverified_header(token)["kid"]]
        jwt.decode(token, key, algorithms=[ALGORITHM], issuer=issuer, audience=audience)

    return cache, verify


def with_joserfc(urls: Sequence[str], issuer: str, audience: str) -> tuple[JwksCache, Verify]:
    """Return the cache, and what raises for a token that joserfc refuses."""
    from joserfc import jwt  # noqa: PLC0415
    from joserfc.jwk import KeySet  # noqa: PLC0415

    cache = JwksCache(urls, KeySet.import_key_set)
    claims = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
    )

    def verify(token: str) -> None:
        claims.validate(jwt.decode(token, cache.keys(), algorithms=[ALGORITHM]).claims)

    return cache, verify


def with_jwcrypto(urls: Sequence[str], issuer: str, audience: str) -> tuple[JwksCache, Verify]:
    """Return the cache, and what raises for a token that jwcrypto refuses."""
    from jwcrypto.jwk import JWKSet  # noqa: PLC0415
    from jwcrypto.jwt import JWT  # noqa: PLC0415

    cache = JwksCache(urls, lambda document: JWKSet.from_json(json.dumps(document)))
    claims = {"iss": issuer, "aud": audience, "exp": None}

    def verify(token: str) -> None:
        JWT(jwt=token, key=cache.keys(), algs=[ALGORITHM], check_claims=claims, expected_type="JWS")

    return cache, verify


LIBRARIES = {"PyJWT": with_pyjwt, "joserfc": with_joserfc, "jwcrypto": with_jwcrypto}


@dataclass(order=True, slots=True)
class Held:
    """A token that is verified again at ``due_at``, until it expires."""

    due_at: float
    number: int
    token: str = field(compare=False)
    kid: str = field(compare=False)
    expires_at: float = field(compare=False)
    probe: bool = field(compare=False)


class Verifier:
    """Verifies what it is handed for as long as it lives, and counts.

    Args:
        cache: the JWKS.
        verify: raises for a token that is refused.
    """

    def __init__(self, cache: JwksCache, verify: Verify) -> None:
        self._cache = cache
        self._verify = verify
        self._held: list[Held] = []
        self._numbers = count()
        self._checks: dict[str, int] = defaultdict(int)
        self._finished: dict[str, int] = defaultdict(int)
        self._report_at = 0.0
        self._probe: Held | None = None

    def run(self) -> None:
        """Go on until there is no more input and nothing is held."""
        reading, lines = True, b""
        while reading or self._held:
            pause = self._pause()
            if reading and select.select([sys.stdin], [], [], pause)[0]:
                read = sys.stdin.buffer.read1(65_536)
                reading = bool(read)
                *complete, lines = (lines + read).split(b"\n")
                for line in complete:
                    self._take(json.loads(line))
            elif not reading:
                time.sleep(pause)
            self._check_due()
            self._report()
        self._report(last=True)

    def _pause(self) -> float:
        due_at = self._held[0].due_at if self._held else time.time() + REPORT_SECONDS
        return max(min(due_at - time.time(), REPORT_SECONDS), 0.0)

    def _take(self, handed: dict[str, Any]) -> None:
        held = Held(
            due_at=time.time(),
            number=next(self._numbers),
            token=handed["token"],
            kid=handed["kid"],
            expires_at=handed["expires_at"],
            probe=handed["probe"],
        )
        if held.probe:
            self._probe = held
        heapq.heappush(self._held, held)

    def _check_due(self) -> None:
        while self._held and self._held[0].due_at <= time.time():
            held = heapq.heappop(self._held)
            if held.probe and held is not self._probe:
                continue
            if time.time() > held.expires_at - MARGIN_SECONDS:
                self._finished[held.kid] += not held.probe
                continue
            self._check(held)

    def _check(self, held: Held) -> None:
        checked_at = time.time()
        try:
            self._verify(held.token)
        except Exception as error:  # noqa: BLE001 - each library has its own; all are refusals
            refusal = f"{type(error).__name__}: {error}"[:120]
            _say(
                refused=held.kid,
                number=held.number,
                at=checked_at,
                why=refusal,
                probe=held.probe,
            )
        else:
            if held.probe:
                _say(accepted=held.kid, at=checked_at)
        self._checks[held.kid] += not held.probe
        held.due_at = time.time() + (PROBE_SECONDS if held.probe else AGAIN_SECONDS)
        heapq.heappush(self._held, held)

    def _report(self, *, last: bool = False) -> None:
        if last or time.monotonic() >= self._report_at:
            self._report_at = time.monotonic() + REPORT_SECONDS
            _say(checks=self._checks, finished=self._finished, fetches=self._cache.fetches)


def _say(**said: object) -> None:
    print(json.dumps(said), flush=True)


def main(library: str, issuer: str, audience: str, *urls: str) -> None:
    """Verify until the input ends and the last token has expired."""
    Verifier(*LIBRARIES[library](urls, issuer, audience)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
