"""The claims of an access token (RFC 9068, 2), read by another library."""

import subprocess
import sys
from base64 import urlsafe_b64decode

import jwt
import pytest

from authz_server.tokens.claims import new_jti
from support.claims import claims_of, header_of
from support.protocol import METHODS, TOKEN_ENDPOINTS, Protocol
from support.settings_file import ISSUER


def verified(protocol: Protocol, token: str) -> dict:
    """Return the claims of a token after PyJWT has checked it against the published keys."""
    keys = jwt.PyJWKSet(protocol.get("/.well-known/jwks.json").json["keys"])
    header = header_of(token)
    return jwt.decode(
        token,
        keys[header["kid"]],
        algorithms=["ES256"],
        audience="https://mapper.example",
        issuer=ISSUER,
        # The application's clock stands still, a little ahead of the present.
        options={"verify_exp": False, "verify_iat": False},
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_type_algorithm_and_claims(protocol: Protocol, endpoint: str, method: str):
    """Case C30."""
    caller = protocol.demo.clients[method]
    token = protocol.ask(endpoint, caller).json["access_token"]
    header = header_of(token)
    assert header.keys() == {"alg", "typ", "kid"}
    assert (header["alg"], header["typ"]) == ("ES256", "at+jwt")
    claims, now = verified(protocol, token), int(protocol.clock().timestamp())
    assert claims == {
        "iss": ISSUER,
        "sub": caller.id,
        "client_id": caller.id,
        "aud": "https://mapper.example",
        "iat": now,
        "exp": now + 900,
        "jti": claims["jti"],
        "scope": "mapper/link",
    }
    # RFC 6749, 10.10 wants 128 bits that nobody can guess; the instant before them is public.
    assert len(urlsafe_b64decode(claims["jti"])) * 8 >= 128 + 56


def test_issuer_is_the_same_whatever_the_host_says(protocol: Protocol):
    """Case C30."""
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    form = protocol.form("token") | protocol.demo.post.form()
    answer = protocol.post("token", form, headers)
    assert claims_of(answer.json["access_token"])["iss"] == ISSUER


RINGS = {
    "rs256": ("RS256", {"n", "e"}),
    "ps256": ("PS256", {"n", "e"}),
    "es384": ("ES384", {"crv", "x", "y"}),
    "eddsa": ("EdDSA", {"crv", "x"}),
}


def test_ring_of_the_resource_server_signs(start_protocol):
    """Case C30."""
    rings = {name: {"algorithm": algorithm} for name, (algorithm, _) in RINGS.items()}
    protocol = start_protocol(keys={"rings": rings})
    published = {key["kid"]: key for key in protocol.get("/.well-known/jwks.json").json["keys"]}
    for name, (algorithm, members) in RINGS.items():
        with protocol.parties.change() as (services, session):
            services.clients.update_resource_server(
                session, "mapper", actor="operator:tester", signing_ring=name
            )
        token = protocol.new_token()
        header = header_of(token)
        assert header["alg"] == algorithm
        assert published[header["kid"]].keys() == members | {"kty", "kid", "use", "alg"}
        key = jwt.PyJWK(published[header["kid"]])
        options = {"verify_exp": False, "verify_iat": False}
        jwt.decode(
            token, key, algorithms=[algorithm], audience="https://mapper.example", options=options
        )
        assert protocol.is_active(token)


def test_token_identifiers_never_repeat():
    """Case C32."""
    made = [new_jti(1_900_000_000_000_000) for _ in range(1_000_000)]
    assert len(set(made)) == len(made)
    random_part = {urlsafe_b64decode(jti)[7:] for jti in made[:10_000]}
    assert {len(part) for part in random_part} == {17}
    # Each of the 136 bits is set in about half of them: 5,000, with a deviation of 50.
    for bit in range(136):
        ones = sum(int.from_bytes(part, "big") >> bit & 1 for part in random_part)
        assert 4_500 < ones < 5_500


_FORKING = """
import os, sys
from authz_server.tokens.claims import new_jti
new_jti(0)
children = []
for _ in range(4):
    child = os.fork()
    if not child:
        break
    children.append(child)
text = "".join(f"{new_jti(1_900_000_000_000_000)}\\n" for _ in range(5_000)).encode()
while text:
    text = text[os.write(1, text[:33 * 100]):]  # whole lines, and few enough to stay together
if child:
    sys.exit(sum(os.waitpid(each, 0)[1] for each in children))
os._exit(0)
"""


def test_token_identifiers_do_not_repeat_after_a_fork():
    """Case C32."""
    run = subprocess.run(
        [sys.executable, "-c", _FORKING], capture_output=True, text=True, check=True
    )
    made = run.stdout.split()
    assert len(made) == 25_000
    assert len(set(made)) == 25_000
