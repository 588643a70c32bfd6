"""Values presented as a token: mutations of a valid one, and others."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable
from random import Random

from support.forged_tokens import segment, token_of

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ODD_VALUES = (
    *(None, True, False, 0, -1, 1.5, 2**63, 10**400, "", " ", "0", "none", "ES256", "../../etc"),
    *([], [None], {}, {"kid": "x"}, "\x00", "\u2028", "\N{GRINNING FACE}", "a" * 5_000),
)
HEADER_NAMES = ("alg", "kid", "typ", "jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc", "p2c")
CLAIM_NAMES = ("iss", "sub", "aud", "exp", "iat", "nbf", "jti", "scope", "client_id", "cnf")


def hostile_token(random: Random, sound: str) -> str:
    """Return something that is no token of ours, unless chance leaves the sound one as it was."""
    return random.choice(_MUTATIONS)(random, sound) if sound else _noise(random, sound)


def _parts(token: str) -> list[str]:
    parts = token.split(".")
    return parts if len(parts) == 3 else [*parts, "", ""][:3]


def _change_character(random: Random, sound: str) -> str:
    position = random.randrange(len(sound))
    other = random.choice([each for each in ALPHABET if each != sound[position]])
    return f"{sound[:position]}{other}{sound[position + 1 :]}"


def _insert(random: Random, sound: str) -> str:
    position = random.randrange(len(sound) + 1)
    piece = random.choice(
        [".", "=", " ", "%", "\u00e9", "\x7f", "..", "A", "\n", "\u2028", "+", "/"]
    )
    return f"{sound[:position]}{piece}{sound[position:]}"


def _cut(random: Random, sound: str) -> str:
    start = random.randrange(len(sound))
    return sound[start:] if random.random() < 0.5 else sound[: start or 1]


def _shuffle(random: Random, sound: str) -> str:
    parts = [*_parts(sound), random.choice(["", "AA", "e30"])]
    random.shuffle(parts)
    return ".".join(parts[: random.randint(1, 4)])


def _repeat(random: Random, sound: str) -> str:
    return random.choice([".", "", "=", "~"]).join([sound] * random.randint(2, 6))


def _edit_header(random: Random, sound: str) -> str:
    return _edit(random, sound, 0, HEADER_NAMES)


def _edit_claims(random: Random, sound: str) -> str:
    return _edit(random, sound, 1, CLAIM_NAMES)


def _edit(random: Random, sound: str, index: int, names: tuple[str, ...]) -> str:
    parts = _parts(sound)
    try:
        members = dict(json.loads(urlsafe_b64decode(parts[index] + "==")))
    except (TypeError, ValueError, RecursionError):  # changed before
        members = {}
    name = random.choice(names)
    if random.random() < 0.25:
        members.pop(name, None)
    else:
        members[name] = random.choice(ODD_VALUES)
    parts[index] = segment(members)
    if random.random() < 0.3:
        parts[2] = random.choice(["", "AA", "A" * 86, parts[2][:-2]])
    return ".".join(parts)


def _forge(random: Random, sound: str) -> str:
    del sound
    header = random.choice(
        [
            {"alg": "none", "typ": "at+jwt"},
            {"alg": "HS256", "typ": "at+jwt"},
            {"alg": "ES256", "crit": ["exp"], "exp": 1},
            {"alg": "dir", "enc": "A256GCM", "zip": "DEF"},
            {"alg": "ES256", "kid": random.choice(["../x", "' OR 1=1", "k" * 9_000, "\x00"])},
            [],
            "alg",
            7,
            None,
        ]
    )
    payload = random.choice([{}, [], 0, None, "x", {"exp": 10**400}, b"\xff\xfe", b"{", b""])
    return token_of(
        header, payload, random.randbytes(random.choice([0, 1, 63, 64, 65, 256])) or b""
    )


def _five_parts(random: Random, sound: str) -> str:
    del sound
    header = {"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2c": 2**31, "p2s": "AA"}
    return ".".join([segment(header), *(segment(random.randbytes(24)) for _ in range(4))])


def _deep(random: Random, sound: str) -> str:
    del sound
    depth = random.choice([50, 500, 1_500])
    nested = b"[" * depth + b"]" * depth
    return ".".join([segment({"alg": "ES256"}), segment(nested), "AA"])


def _like_reference(random: Random, sound: str) -> str:
    del sound
    return "".join(random.choices(f"{ALPHABET}\u00e9' ", k=random.choice([42, 43, 43, 43, 44])))


def _noise(random: Random, sound: str) -> str:
    del sound
    length = random.choice([1, 10, 100, 2_000])
    return "".join(chr(random.choice([*range(33, 127), 233, 8232, 65536])) for _ in range(length))


def _long(random: Random, sound: str) -> str:
    return random.choice(["A", ".", "eyJ", f"{sound}."]) * random.randint(500, 3_000)


_MUTATIONS: tuple[Callable[[Random, str], str], ...] = (
    *(_change_character, _insert, _cut, _shuffle, _repeat, _edit_header, _edit_claims),
    *(_forge, _five_parts, _deep, _like_reference, _noise, _long),
)
