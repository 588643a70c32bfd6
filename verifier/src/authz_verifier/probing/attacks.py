"""Attacks: requests that an API must refuse."""

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from authz_verifier.compact import decode_segment, encode_segment
from authz_verifier.signing import SigningKey

#: Encodings of the same token: accepted by lax parsers, and no forgery (RFC 7515, 2 forbids them).
_ADVISORY = frozenset(
    {
        *("padding appended", "padded header", "padded payload", "padded signature"),
        *("standard alphabet", "header without its last character"),
        *("quoted token", "two tokens with a comma", "token and a further parameter"),
    }
)


@dataclass(frozen=True, slots=True)
class Attack:
    """One request that must be refused.

    Attributes:
        group: the kind of attack.
        name: unique within its group.
        headers: the headers with the hostile token.
        query: a query to append to the URL.
        form: a form to send as the body.
        before: the headers of a request to send first, which the API accepts.
        advisory: whether an API that accepts it is lax, but not open to an attack.
    """

    group: str
    name: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    query: str = field(default="", repr=False)
    form: str = field(default="", repr=False)
    before: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    advisory: bool = False


@dataclass(frozen=True, slots=True)
class SoundToken:
    """A token that the API accepts, taken apart.

    Args:
        text: the token.
        header: its header; empty for a reference token.
        claims: its payload; likewise.
    """

    text: str = field(repr=False)
    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    @property
    def is_jwt(self) -> bool:
        """Whether it is a JWT."""
        return bool(self.header)

    @property
    def segments(self) -> tuple[str, str, str]:
        """The three segments of a JWT."""
        first, second, third = self.text.split(".")
        return first, second, third


def read_sound(text: str) -> SoundToken:
    """Take a token apart; one that is not a JWT is a reference token."""
    try:
        first, second, _ = text.split(".")
        header = json.loads(decode_segment(first.encode()))
        claims = json.loads(decode_segment(second.encode()))
    except ValueError:
        return SoundToken(text, {}, {})
    return SoundToken(text, header, claims)


def bearer(group: str, name: str, token: str) -> Attack:
    """Return an attack with a bearer token."""
    headers = (("Authorization", f"Bearer {token}"),)
    return Attack(group, name, headers, advisory=name in _ADVISORY or group == "signed JSON")


def segment(value: object) -> str:
    """Encode bytes as they are, and anything else as JSON, in base64url."""
    data = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return encode_segment(data).decode()


def join(header: object, payload: object, signature: bytes | str) -> str:
    """Return a token of any parts; a signature in text is already encoded."""
    last = signature if isinstance(signature, str) else encode_segment(signature).decode()
    return f"{segment(header)}.{segment(payload)}.{last}"


def changed(members: Mapping[str, Any], **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return members with changes; a change to None takes one away."""
    return {name: value for name, value in {**members, **changes}.items() if value is not None}


def transport_attacks(sound: SoundToken) -> Iterator[Attack]:
    """Yield requests that present a token in a wrong way."""
    token, group = sound.text, "transport"
    yield Attack(group, "no token", ())
    for name, value in {
        "empty header": "",
        "scheme alone": "Bearer",
        "token without a scheme": token,
        "Basic scheme": f"Basic {token}",
        "unknown scheme": f"Token {token}",
        "MAC scheme": f"MAC {token}",
        "scheme joined to the token": f"Bearer{token}",
        "scheme with a colon": f"Bearer: {token}",
        "scheme with an equals sign": f"Bearer={token}",
        "quoted token": f'Bearer "{token}"',
        "token in braces": f"Bearer {{{token}}}",
        "token as parameter": f"Bearer token={token}",
        "two tokens": f"Bearer {token} {token}",
        "two tokens with a comma": f"Bearer {token},{token}",
        "scheme twice": f"Bearer Bearer {token}",
        "token and a further parameter": f"Bearer {token}; a=b",
        "DPoP scheme without a proof": f"DPoP {token}",
        "null": "Bearer null",
        "undefined": "Bearer undefined",
        "dots": "Bearer ..",
        "percent-encoded dots": f"Bearer {token.replace('.', '%2E')}"
        if sound.is_jwt
        else "Bearer %00",
        "very long token": f"Bearer {'A' * 7_000}",
        "upper case": f"Bearer {token.upper()}",
        "lower case": f"Bearer {token.lower()}",
        "reversed": f"Bearer {token[::-1]}",
        "first half": f"Bearer {token[: len(token) // 2]}",
        "second half": f"Bearer {token[len(token) // 2 :]}",
        "last character missing": f"Bearer {token[:-1]}",
        "character appended": f"Bearer {token}A",
        "padding appended": f"Bearer {token}=",
        "wildcard": "Bearer *",
        "SQL": "Bearer '-OR-1=1--",
        "path": "Bearer ../../etc/passwd",
    }.items():
        advisory = name in _ADVISORY
        yield Attack(group, name, (("Authorization", value),), advisory=advisory)
    yield Attack(group, "in the query", (), query=f"access_token={token}")
    yield Attack(group, "in the form", (), form=f"access_token={token}", advisory=True)
    yield Attack(group, "in a cookie", (("Cookie", f"access_token={token}"),))
    for name in ("X-Authorization", "X-Access-Token", "Proxy-Authorization", "X-Forwarded-User"):
        yield Attack(group, f"in {name}", ((name, f"Bearer {token}"),))


def structure_attacks(sound: SoundToken) -> Iterator[Attack]:
    """Yield tokens with segments missing, added, swapped or encoded differently."""
    first, second, third = sound.segments
    swapped = third.translate(str.maketrans("-_", "+/"))
    for name, token in {
        "two segments": f"{first}.{second}",
        "stripped signature": f"{first}.{second}.",
        "one segment": first,
        "four segments": f"{first}.{second}.{third}.{third}",
        "five segments": f"{first}.{second}.{third}.{first}.{second}",
        "leading dot": f".{first}.{second}.{third}",
        "empty header": f".{second}.{third}",
        "empty payload": f"{first}..{third}",
        "header twice": f"{first}.{first}.{third}",
        "payload first": f"{second}.{first}.{third}",
        "signature first": f"{third}.{first}.{second}",
        "padded header": f"{first}=.{second}.{third}",
        "padded payload": f"{first}.{second}=.{third}",
        "padded signature": f"{first}.{second}.{third}==",
        "standard alphabet": f"{first}.{second}.{swapped if swapped != third else third + '+/'}",
        "header without its last character": f"{first[:-1]}.{second}.{third}",
        "payload without its last character": f"{first}.{second[:-1]}.{third}",
        "signature cut in half": f"{first}.{second}.{third[: len(third) // 2]}",
        "signature of zeros": f"{first}.{second}.{'A' * len(third)}",
        "signature of ones": f"{first}.{second}.{'_' * len(third)}",
        "signature of one byte": f"{first}.{second}.AA",
        "signature twice": f"{first}.{second}.{third}{third}",
        "signature reversed": f"{first}.{second}.{third[::-1]}",
        "JSON serialization": segment({"payload": second, "protected": first, "signature": third}),
    }.items():
        yield bearer("structure", name, token)


def header_attacks(sound: SoundToken) -> Iterator[Attack]:
    """Yield tokens whose header was changed after they were signed, or signed by the attacker."""
    forger = SigningKey("ES256", kid=str(sound.header.get("kid", "")))
    _, _, third = sound.segments
    for algorithm in ("none", "None", "NONE", "nOnE", ""):
        header = changed(sound.header, alg=algorithm)
        yield bearer("algorithm", f"{algorithm!r} unsigned", join(header, sound.claims, ""))
        yield bearer(
            "algorithm", f"{algorithm!r} with a signature", join(header, sound.claims, third)
        )
    for algorithm in ("HS256", "RS256", "RS512", "PS512", "ES384", "ES256K", "EdDSA", "ES999"):
        if algorithm != sound.header.get("alg"):
            header = changed(sound.header, alg=algorithm)
            yield bearer("algorithm", algorithm, join(header, sound.claims, third))
    for name, value in {
        "a list": ["ES256"],
        "a number": 1,
        "an object": {},
        "missing": None,
    }.items():
        yield bearer("algorithm", name, join(changed(sound.header, alg=value), sound.claims, third))
    members: dict[str, dict[str, Any]] = {
        "foreign key under the kid": {},
        "embedded jwk": {"jwk": forger.public_jwk},
        "embedded jwk without a kid": {"jwk": forger.public_jwk, "kid": None},
        "jku": {"jku": "https://attacker.invalid/jwks.json"},
        "jku on loopback": {"jku": "http://127.0.0.1:9/jwks.json"},
        "x5u": {"x5u": "https://attacker.invalid/cert.pem"},
        "x5c": {"x5c": ["MIIB"]},
        "crit": {"crit": ["exp"], "exp": 1},
        "crit of an unknown extension": {"crit": ["x"], "x": 1},
        "b64 false": {"b64": False, "crit": ["b64"]},
        "zip": {"zip": "DEF"},
        "nested": {"cty": "JWT"},
        "no kid": {"kid": None},
        "empty kid": {"kid": ""},
        "unknown kid": {"kid": "unknown"},
        "kid as a path": {"kid": "../../../../dev/null"},
        "kid as SQL": {"kid": "' UNION SELECT 'x"},
        "kid as a command": {"kid": "|/bin/true"},
        "kid as a URL": {"kid": "https://attacker.invalid/key"},
        "kid with a null byte": {"kid": f"{sound.header.get('kid', '')}\x00"},
        "kid as a list": {"kid": [sound.header.get("kid")]},
        "long kid": {"kid": "k" * 3_000},
        "typ of an ID token": {"typ": "JWT"},
        "typ of a proof": {"typ": "dpop+jwt"},
        "typ of a logout token": {"typ": "logout+jwt"},
        "no typ": {"typ": None},
    }
    for name, changes in members.items():
        header = {"alg": "ES256", **changed(sound.header, **changes)}
        header["alg"] = "ES256"
        data = f"{segment(header)}.{segment(sound.claims)}"
        token = f"{data}.{encode_segment(forger.sign_bytes(data.encode())).decode()}"
        yield bearer("header", name, token)
    _, second, third = sound.segments
    for name, raw in _bent(json.dumps(sound.header).encode()):
        yield bearer("header", name, f"{segment(raw)}.{second}.{third}")


def claim_attacks(sound: SoundToken, signer: SigningKey | None) -> Iterator[Attack]:
    """Yield tokens with changed claims.

    Args:
        sound: the token.
        signer: the issuer's key, which makes the tokens that its server would never issue; None
            keeps the signature of the sound token, which no longer fits.
    """
    group = "signed claims" if signer else "claims"
    for name, changes in _claim_changes(sound.claims).items():
        claims = changed(sound.claims, **changes)
        yield bearer(group, name, _signed(sound, json.dumps(claims).encode(), signer))
    for name, raw in _bent(json.dumps(sound.claims).encode()):
        if signer is None:
            yield bearer(group, name, _signed(sound, raw, None))
        elif name != "deep nesting":  # which is JSON
            yield bearer("signed JSON", name, _signed(sound, raw, signer))
    if signer is not None:
        for typ in ("JWT", "dpop+jwt", "logout+jwt", "token-introspection+jwt", "secevent+jwt"):
            if typ != sound.header.get("typ"):
                token = signer.sign(sound.claims, {"typ": typ})
                yield bearer(group, f"typ {typ}", token)


def hmac_attacks(sound: SoundToken, public_keys: Mapping[str, bytes]) -> Iterator[Attack]:
    """Yield HMACs whose secret is a public key, in each of its forms, or a guess."""
    secrets = dict(public_keys) | {"empty": b"", "secret": b"secret", "zero": b"\0" * 32}
    for algorithm, digest in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
        for name, secret in secrets.items():
            data = f"{segment(changed(sound.header, alg=algorithm))}.{segment(sound.claims)}"
            mac = hmac.new(secret, data.encode(), digest).digest()
            token = f"{data}.{encode_segment(mac).decode()}"
            yield bearer("algorithm", f"{algorithm} keyed by {name}", token)


def _signed(sound: SoundToken, payload: bytes, signer: SigningKey | None) -> str:
    if signer is None:
        first, _, third = sound.segments
        return f"{first}.{segment(payload)}.{third}"
    header = {"alg": signer.algorithm, "kid": signer.kid, "typ": sound.header.get("typ", "at+jwt")}
    return signer.sign_segments(json.dumps(header).encode(), payload)


def _claim_changes(claims: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    now, issuer, audience = int(claims.get("iat", 0)), claims.get("iss"), claims.get("aud")
    return {
        "expired an hour ago": {"exp": now - 3_600, "iat": now - 7_200},
        "expired in 1970": {"exp": 0},
        "expired before 1970": {"exp": -1},
        "expiry as text": {"exp": str(now + 3_600)},
        "expiry as a boolean": {"exp": True},
        "expiry as a list": {"exp": [now + 3_600]},
        "no expiry": {"exp": None},
        "not valid before tomorrow": {"nbf": now + 86_400, "exp": now + 90_000},
        "issued tomorrow": {"iat": now + 86_400, "exp": now + 90_000},
        "other issuer": {"iss": "https://attacker.invalid"},
        "issuer with a slash": {"iss": f"{issuer}/"},
        "issuer with a suffix": {"iss": f"{issuer}.attacker.invalid"},
        "issuer in upper case": {"iss": str(issuer).upper()},
        "issuer as a list": {"iss": [issuer]},
        "no issuer": {"iss": None},
        "other audience": {"aud": "https://other.invalid"},
        "other audiences": {"aud": ["https://other.invalid", "https://another.invalid"]},
        "audience with a suffix": {"aud": f"{audience}.attacker.invalid"},
        "empty audience": {"aud": ""},
        "empty list of audiences": {"aud": []},
        "audience as an object": {"aud": {"a": audience}},
        "no audience": {"aud": None},
        "no scope": {"scope": None},
        "empty scope": {"scope": ""},
        "other scope": {"scope": "unknown:scope"},
        "wildcard scope": {"scope": "*"},
        "scopes joined by commas": {"scope": str(claims.get("scope", "")) + ",x"},
        "scope with a suffix": {"scope": str(claims.get("scope", "")) + "x"},
        "scope with a prefix": {"scope": "x" + str(claims.get("scope", ""))},
        "scope in upper case": {"scope": str(claims.get("scope", "")).upper() + "X"},
        "bound to another key": {"cnf": {"jkt": "A" * 43}},
        "bound to another certificate": {"cnf": {"x5t#S256": "A" * 43}},
        "bound by an unknown method": {"cnf": {"x-unknown": "A"}},
    }


def _bent(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield JSON that parsers read differently."""
    body = data.rstrip()[:-1]
    yield "repeated member", body + b', "aud": "x", "aud": "y", "alg": "none", "alg": "HS256"}'
    yield "trailing text", data + b"x"
    yield "second object", data + b"{}"
    yield "byte order mark", b"\xef\xbb\xbf" + data
    yield "not UTF-8", body + b', "x": "\xff"}'
    yield "lone surrogate", body + b', "x": "\\ud800"}'
    yield "NaN", body + b', "x": NaN}'
    yield "infinite number", body + b', "x": 1e999}'
    yield "comment", body + b"/**/}"
    yield "trailing comma", body + b",}"
    yield "single quotes", data.replace(b'"', b"'")
    yield "a list", b"[" + data + b"]"
    yield "a string", json.dumps(data.decode()).encode()
    yield "null", b"null"
    yield "an empty object", b"{}"
    yield "deep nesting", body + b', "x": ' + b"[" * 900 + b"]" * 900 + b"}"
    yield "UTF-16", data.decode().encode("utf-16")
