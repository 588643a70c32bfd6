"""Requests that no proper client sends: a sound one, changed in one to three places."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from urllib.parse import quote, quote_plus

from support.hostile_tokens import hostile_token
from support.wsgi import RawRequest

#: In most hostile text, so that an echo is noticed.
MARKER = "zq7Xmark"
METHODS = ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "POST", "BREW")
_PATHS = (
    *("/", "//", "", "/oauth2", "/oauth2/", "/oauth2/token/", "//oauth2/token", "/OAUTH2/TOKEN"),
    *("/oauth2/token%00", "/oauth2/./token", "/oauth2/../oauth2/token", "/oauth2/token;x=1", "*"),
    *(
        "/health/ready",
        "/openapi.json",
        "/metrics",
        "/admin",
        "/.env",
        "/static/x",
        "/\u00e9\u00ff",
    ),
    *("/.well-known/", "/.well-known/jwks.json/", "http://other.example/oauth2/token", "/\x00"),
)
_TYPES = (
    *(
        "",
        "application/json",
        "text/plain",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
    ),
    *("application/x-www-form-urlencoded; charset=utf-16", "application/x-www-form-urlencoded;"),
    *("application/x-www-form-urlencoded; charset=utf-8; x=y", "\u00ff/\u00ff", ";", "a" * 3_000),
    *("APPLICATION/X-WWW-FORM-URLENCODED", 'application/x-www-form-urlencoded; charset="utf-8"'),
    f"application/{MARKER}",
)
_BODIES = (
    *(b"", b"&", b"=", b"&&&===", b"%", b"%zz", b"a=%ff%fe", b"\xff\xfe\x00", b"\x00" * 50),
    *(b'{"grant_type":"client_credentials"}', b"<x/>", b"a=1;b=2", b"=" * 5_000, b"a" * 70_000),
    *(b"a=1&" * 100, b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--\r\n"),
    b"\x1f\x8b\x08\x00" + b"\x00" * 100,
)
_LENGTHS = (
    "",
    "-1",
    "+5",
    "0x10",
    "5, 5",
    "1e3",
    "9" * 30,
    "70000",
    "0",
    "3",
    "\u0663",
    " 7 ",
    "999",
)
_PARAMETERS = (
    *("grant_type", "scope", "client_id", "client_secret", "token", "token_type_hint", "resource"),
    *("client_assertion", "client_assertion_type", "code", "username", "password", "audience", ""),
    *("resource[]", "scope[0]", "__proto__", "request_uri", "refresh_token", "assertion", "DPoP"),
)
_HEADERS = (
    *(
        "Accept",
        "Accept-Language",
        "timestamp",
        "message_id",
        "X-Forwarded-For",
        "Forwarded",
        "Host",
    ),
    *("X-Forwarded-Proto", "X-Forwarded-Host", "X-HTTP-Method-Override", "Cookie", "Range", "DPoP"),
    *("If-None-Match", "If-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "TE"),
    *("Content-Encoding", "Transfer-Encoding", "Expect", "Origin", "X-Request-Id", "User-Agent"),
    *("Content-Language", "X-Original-URL", "X-Client-Cert", "traceparent", "Accept-Encoding"),
)
_HEADER_VALUES = (
    *(
        "",
        " ",
        "*",
        "*/*",
        "q=1",
        ";q=",
        "fr;q=0.5, en;q=nan",
        "fr-" * 400,
        "identity",
        "gzip",
        "chunked",
    ),
    *('"x"', 'W/"x"', '"x', "bytes=0-0", "bytes=-", "bytes=9-1", "Tue, 06 Mar 2020 21:00:00 GMT"),
    *(
        "Mon, 99 Foo 9999 99:99:99 GMT",
        "Wed, 01 Jan 0001 00:00:00 GMT",
        "now",
        "1e400",
        "::1",
        "\u00ff",
    ),
    *("application/token-introspection+jwt", "application/token-introspection+jwt;q=x, */*;q=0.1"),
    *("127.0.0.1, 10.0.0.1", "unknown", "' OR 1=1 --", "${jndi:ldap://x}", "a b", "\t", "\x7f"),
    *(
        "a" * 8_000,
        "session=x; session=y",
        f"{MARKER}",
        f"<{MARKER}>",
        f"[{MARKER}]:80",
        "evil.example",
    ),
)
_VALUES = (
    *(
        "",
        " ",
        "+",
        "*",
        "mapper/*",
        "mapper/link mapper/link",
        "mapper/link\tmapper/resolve",
        "null",
    ),
    *("mapper.link", "MAPPER/LINK", "mapper/link,mapper/unlink", "disburse/disburse mapper/link"),
    *(
        "password",
        "refresh_token",
        "authorization_code",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
    ),
    *(
        "https://mapper.example",
        "https://disburse.example",
        "https://mapper.example#f",
        "//x",
        "about:",
    ),
    *(
        "' OR '1'='1",
        '"; DROP TABLE client; --',
        "{{7*7}}",
        "${7*7}",
        "%s%n",
        "../../../etc/passwd",
    ),
    *(
        "\x00",
        "\x1b[31m",
        "\r\nSet-Cookie: x=1",
        "\u2028",
        "\u202e",
        "\ufffe",
        "\N{GRINNING FACE}",
        "e\u0301",
    ),
    *("1e400", "NaN", "-1", "true", "[]", "{}", "a" * 300, "a" * 9_000, "client-post", "mapper"),
    *(MARKER, f"<script>{MARKER}</script>", f"{MARKER}\r\nX-Injected: 1", f'"{MARKER}\\'),
)


@dataclass(frozen=True)
class SoundRequest:
    """A request that succeeds: a form with its headers, or a document."""

    method: str
    path: str
    headers: dict[str, str]
    form: tuple[tuple[str, str], ...]


@dataclass
class _Draft:
    """A request under change; `body` replaces the form where it is set."""

    request: RawRequest
    form: list[tuple[str, str]]
    body: bytes | None = None

    def finish(self, random: Random) -> RawRequest:
        if self.body is None:
            self.body = _spell(random, self.form)
        self.request.body = self.body
        return self.request


class HostileRequests:
    """Makes requests without end; the same seed makes the same ones from the same sound ones."""

    def __init__(self, seed: str, sound: list[SoundRequest]) -> None:
        self._random = Random(seed)
        self._sound = sound

    def make(self) -> RawRequest:
        """Return the next request."""
        random = self._random
        sound = random.choice(self._sound)
        request = RawRequest(sound.method, sound.path, headers=dict(sound.headers))
        draft = _Draft(request, list(sound.form))
        for _ in range(random.randint(1, 3)):
            random.choice(_MUTATIONS)(random, draft)
        return draft.finish(random)


def _spell(random: Random, form: list[tuple[str, str]]) -> bytes:
    encode = random.choice([quote_plus, quote, _every_character, str])
    text = "&".join(f"{quote_plus(name)}={encode(value)}" for name, value in form)
    return text.encode("utf-8", "surrogatepass")


def _every_character(value: str) -> str:
    return "".join(f"%{byte:02x}" for byte in value.encode("utf-8", "surrogatepass"))


def _change_value(random: Random, draft: _Draft) -> None:
    if draft.form:
        position = random.randrange(len(draft.form))
        draft.form[position] = (draft.form[position][0], random.choice(_VALUES))


def _add_parameter(random: Random, draft: _Draft) -> None:
    name = random.choice([*_PARAMETERS, MARKER, "\x00", "\N{GRINNING FACE}", "a" * 9_000])
    for _ in range(random.choice([1, 1, 1, 2, 20, 70])):
        draft.form.insert(random.randint(0, len(draft.form)), (name, random.choice(_VALUES)))


def _drop_parameter(random: Random, draft: _Draft) -> None:
    if draft.form:
        draft.form.pop(random.randrange(len(draft.form)))


def _repeat_parameter(random: Random, draft: _Draft) -> None:
    if draft.form:
        draft.form.append(random.choice(draft.form))


def _change_token(random: Random, draft: _Draft) -> None:
    draft.form = [
        (name, hostile_token(random, value) if name == "token" else value)
        for name, value in draft.form
    ]


def _change_bytes(random: Random, draft: _Draft) -> None:
    body = bytearray(_spell(random, draft.form))
    for _ in range(random.randint(1, 8)):
        if body:
            body[random.randrange(len(body))] = random.randrange(256)
    draft.body = bytes(body)


def _replace_body(random: Random, draft: _Draft) -> None:
    draft.body = random.choice([*_BODIES, random.randbytes(random.randint(1, 200))])


def _change_length(random: Random, draft: _Draft) -> None:
    draft.request.content_length = random.choice(_LENGTHS)
    if random.random() < 0.3:
        draft.request.headers["Transfer-Encoding"] = random.choice(["chunked", "identity", "x"])


def _change_type(random: Random, draft: _Draft) -> None:
    draft.request.headers["Content-Type"] = random.choice(_TYPES)


def _change_header(random: Random, draft: _Draft) -> None:
    value = random.choice(_HEADER_VALUES)
    draft.request.headers[random.choice(_HEADERS)] = value


def _drop_header(random: Random, draft: _Draft) -> None:
    if draft.request.headers:
        draft.request.headers.pop(random.choice(list(draft.request.headers)))


def _change_authorization(random: Random, draft: _Draft) -> None:
    pair = random.choice(
        [
            *(b"", b":", b"a", b"a:", b":b", b"a:b:c", b"\xff:\xff", b"%ff:%ff", b"%:%", b"+:+"),
            *(b"client-basic:wrong", b"client-basic:", b"\x00:\x00", f"{MARKER}:{MARKER}".encode()),
            random.randbytes(random.randint(1, 60)),
            b"a" * 7_000 + b":b",
        ]
    )
    encoded = base64.b64encode(pair).decode()
    scheme = random.choice(
        ["Basic ", "basic ", "BASIC  ", "Basic\t", "Basic", "Bearer ", "Digest "]
    )
    junk = ["", "Basic", "Basic =", "Basic ====", "Basic \u00e9", ",", f"Basic {encoded}x", MARKER]
    value = random.choice([f"{scheme}{encoded}", f"{scheme}{encoded.rstrip('=')}", *junk])
    draft.request.headers["Authorization"] = value


def _change_target(random: Random, draft: _Draft) -> None:
    request = draft.request
    match random.randrange(3):
        case 0:
            request.method = random.choice(METHODS)
        case 1:
            request.path = random.choice([*_PATHS, f"{request.path}/{MARKER}", f"/{MARKER}"])
        case _:
            queries = ["a=1", "?", "%", f"x={MARKER}", "grant_type=client_credentials", "\u00ff"]
            request.query = random.choice(queries)


_MUTATIONS: tuple[Callable[[Random, _Draft], None], ...] = (
    *(_change_value, _change_value, _add_parameter, _drop_parameter, _repeat_parameter),
    *(_change_token, _change_token, _change_bytes, _replace_body, _change_length, _change_type),
    *(_change_header, _change_header, _drop_header, _change_authorization, _change_target),
)
