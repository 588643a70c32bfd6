"""Mode `status`: status lists, their cache, and lists that must not be believed."""

import asyncio
import json
import time
import tracemalloc
import zlib

import pytest

from authz_verifier import AsyncVerifier, ConfigurationError, Refusal, Verifier
from authz_verifier.compact import encode_segment
from authz_verifier.documents import parse_key_set
from authz_verifier.signing import SigningKey
from authz_verifier.status_lists import parse_status_list
from authz_verifier.testing import DEFAULT_AUDIENCE

SCOPE = "mapper/link"


@pytest.fixture(params=["sync", "async"])
def make(request, issuer):
    """A function of settings: a verifier in mode `status`, and its function that authenticates."""
    closing = []

    def of_threads(settings):
        verifier = Verifier(issuer.url, DEFAULT_AUDIENCE, mode="status", **settings)
        closing.append(verifier.close)
        return verifier, verifier.authenticate

    def of_asyncio(settings):
        runner = asyncio.Runner()
        verifier = AsyncVerifier(issuer.url, DEFAULT_AUDIENCE, mode="status", **settings)
        closing.extend([lambda: runner.run(verifier.aclose()), runner.close])
        return verifier, lambda *call: runner.run(verifier.authenticate(*call))

    yield lambda **settings: (of_threads if request.param == "sync" else of_asyncio)(settings)
    for close in closing:
        close()


@pytest.fixture
def authenticate(make):
    return make()[1]


def refuse(authenticate, *call) -> Refusal:
    with pytest.raises(Refusal) as caught:
        authenticate(*call)
    return caught.value


def pack(statuses: bytes) -> str:
    return encode_segment(zlib.compress(statuses, 9)).decode()


@pytest.mark.parametrize(("status", "reason"), [(1, "revoked"), (2, "suspended"), (3, "status")])
def test_a_token_whose_status_is_not_valid_is_refused(
    authenticate, issuer, present, status, reason
):
    """The neighbours in the same byte are accepted; one list is fetched for all."""
    tokens = [issuer.token(SCOPE) for _ in range(9)]
    issuer.set_status(tokens[5], status)
    for token in tokens[:5] + tokens[6:]:
        assert authenticate(present(token), SCOPE).client_id == "test-client"
    refusal = refuse(authenticate, present(tokens[5]), SCOPE)
    assert (refusal.status, refusal.error, refusal.reason) == (401, "invalid_token", reason)
    assert issuer.list_fetches == 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_statuses_of_every_size_are_read(authenticate, issuer, present, bits):
    """The first status is in the lowest bits (draft-ietf-oauth-status-list, 4.1)."""
    first, second = issuer.token(SCOPE), issuer.token(SCOPE)
    statuses = bytes([1 << bits, 0]) if bits < 8 else b"\x00\x01"
    issuer.status_list = {"status_list": {"bits": bits, "lst": pack(statuses)}}
    assert authenticate(present(first), SCOPE)
    assert refuse(authenticate, present(second), SCOPE).reason == "revoked"


def test_the_example_of_the_draft_is_read(authenticate, issuer, present):
    """4.2, with two bits: 1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3."""
    lst = encode_segment(bytes.fromhex("78da3be9f2130003df0207")).decode()
    issuer.status_list = {"status_list": {"bits": 2, "lst": lst}}
    tokens = [issuer.token(SCOPE) for _ in range(13)]
    reasons = []
    for token in tokens:
        try:
            authenticate(present(token), SCOPE)
            reasons.append("")
        except Refusal as refusal:
            reasons.append(refusal.reason)
    one, two, three = "revoked", "suspended", "status"
    assert reasons == [
        *(one, two, "", three, "", one, "", one, one, two, three, three),
        "status index",
    ]


@pytest.mark.parametrize(
    "status",
    [
        None,
        "revoked",
        {},
        {"status_list": None},
        {"status_list": {"idx": 0}},
        {"status_list": {"idx": -1, "uri": "https://issuer.example/1"}},
        {"status_list": {"idx": True, "uri": "https://issuer.example/1"}},
        {"status_list": {"idx": "0", "uri": "https://issuer.example/1"}},
        {"status_list": {"idx": 0, "uri": "http://issuer.example/1"}},
        {"status_list": {"idx": 0, "uri": 1}},
    ],
)
def test_a_token_without_a_usable_entry_is_refused(authenticate, issuer, present, status):
    """No list is fetched for it."""
    refusal = refuse(authenticate, present(issuer.token(SCOPE, status=status)), SCOPE)
    assert refusal.error == "invalid_token"
    assert issuer.list_fetches == 0


def test_a_token_that_is_refused_anyway_causes_no_fetch(authenticate, issuer, present):
    assert refuse(authenticate, present(issuer.token("other")), SCOPE).status == 403
    assert refuse(authenticate, present(issuer.token(SCOPE, exp=1)), SCOPE).status == 401
    assert issuer.list_fetches == 0


BAD_LISTS = {
    "another address": {"sub": "https://issuer.example/status-lists/1"},
    "another issuer": {"iss": "https://other.example"},
    "no address": {"sub": None},
    "no time": {"iat": None},
    "a time to come": {"iat": int(time.time()) + 3_600},
    "expired": {"exp": int(time.time()) - 60},
    "an expiry that is no number": {"exp": "tomorrow"},
    "a negative ttl": {"ttl": -1},
    "a ttl that is no number": {"ttl": "60"},
    "no list": {"status_list": None},
    "odd bits": {"status_list": {"bits": 3, "lst": pack(bytes(8))}},
    "bits in a float": {"status_list": {"bits": 2.0, "lst": pack(bytes(8))}},
    "bits that are true": {"status_list": {"bits": True, "lst": pack(bytes(8))}},
    "bits in a list": {"status_list": {"bits": [2], "lst": pack(bytes(8))}},
    "no bits": {"status_list": {"lst": pack(bytes(8))}},
    "not compressed": {"status_list": {"bits": 2, "lst": encode_segment(bytes(8)).decode()}},
    "not base64url": {"status_list": {"bits": 2, "lst": "***"}},
    "truncated": {"status_list": {"bits": 2, "lst": pack(bytes(range(256)) * 64)[:-40]}},
    "something after it": {
        "status_list": {"bits": 2, "lst": encode_segment(zlib.compress(bytes(8)) + b"x").decode()}
    },
    "a bomb": {"status_list": {"bits": 2, "lst": pack(bytes(20_000_000))}},
}


@pytest.mark.parametrize("changes", BAD_LISTS.values(), ids=BAD_LISTS.keys())
def test_a_bad_list_makes_no_statement_about_a_token(
    authenticate, issuer, present, changes, caplog
):
    """503: neither accepted nor refused for good; another attempt follows after a pause."""
    issuer.status_list = changes
    refusal = refuse(authenticate, present(issuer.token(SCOPE)), SCOPE)
    assert (refusal.status, refusal.error) == (503, "temporarily_unavailable")
    fetches = issuer.list_fetches
    for _ in range(20):
        assert refuse(authenticate, present(issuer.token(SCOPE)), SCOPE).status == 503
    assert issuer.list_fetches <= fetches + 1
    assert f"A status list cannot be used: {issuer.url}/status-lists/1: " in caplog.text


def test_after_a_truncated_list_a_sound_one_is_used_without_help(authenticate, issuer, present):
    issuer.status_list = BAD_LISTS["truncated"]
    assert refuse(authenticate, present(issuer.token(SCOPE)), SCOPE).status == 503
    issuer.status_list = {"ttl": 60}
    time.sleep(1.1)
    assert authenticate(present(issuer.token(SCOPE)), SCOPE)


def test_a_bomb_takes_little_memory():
    """200 MB of zeros are 200 kB in the list."""
    key = SigningKey()
    keys = parse_key_set(json.dumps({"keys": [key.public_jwk]}).encode())
    uri = "https://issuer.example/1"
    claims = {"sub": uri, "iat": 1, "status_list": {"bits": 2, "lst": pack(bytes(200_000_000))}}
    token = key.sign(claims, {"typ": "statuslist+jwt"}).encode()
    tracemalloc.start()
    with pytest.raises(ValueError, match="too large"):
        parse_status_list(token, uri, "https://issuer.example", keys, frozenset({"ES256"}), 2.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16_000_000


def test_a_list_of_a_foreign_key_is_not_believed(authenticate, issuer, present, monkeypatch):
    """Neither is a list whose `typ` is that of an access token."""
    foreign = SigningKey(kid=issuer.keys[0].kid)
    signed = {"foreign": (foreign, "statuslist+jwt"), "typ": (issuer.keys[0], "at+jwt")}
    for key, typ in signed.values():
        claims = {"sub": f"{issuer.url}/status-lists/1", "iat": int(time.time())}
        claims["status_list"] = {"bits": 2, "lst": pack(bytes(64))}
        monkeypatch.setattr(issuer, "signed_list", lambda: key.sign(claims, {"typ": typ}))  # noqa: B023 - used at once
        assert refuse(authenticate, present(issuer.token(SCOPE)), SCOPE).status == 503
        time.sleep(1.1)


def test_a_list_by_a_key_that_is_not_known_yet_fetches_the_keys(make, issuer, present):
    _, authenticate = make()
    token = issuer.token(SCOPE)
    assert authenticate(present(token), SCOPE)
    issuer.rotate()
    issuer.status_list = {"ttl": 1}
    verifier, authenticate = make()
    authenticate(present(token), SCOPE)
    issuer.set_status(token, 1)
    issuer.rotate()
    verifier.drop_caches()
    assert refuse(authenticate, present(token), SCOPE).reason == "revoked"


def test_a_list_is_used_for_its_ttl(make, issuer, present):
    """It is fetched again in time; `ttl` counts, and not the `max-age` of the response."""
    issuer.status_list = {"ttl": 1}
    _, authenticate = make()
    token = issuer.token(SCOPE)
    authenticate(present(token), SCOPE)
    issuer.set_status(token, 2)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            authenticate(present(token), SCOPE)
        except Refusal:
            break
        time.sleep(0.02)
    assert refuse(authenticate, present(token), SCOPE).reason == "suspended"
    issuer.set_status(token, 0)
    time.sleep(1.2)
    assert authenticate(present(token), SCOPE)


@pytest.mark.parametrize(("kept", "accepted"), [(0, False), (60, True)])
def test_a_stale_list_is_refused_unless_it_is_kept(make, issuer, present, kept, accepted):
    """503 beyond `ttl` while the server is down, or the last list with `status_kept_seconds`."""
    issuer.status_list = {"ttl": 1}
    _, authenticate = make(status_kept_seconds=kept)
    token = issuer.token(SCOPE)
    authenticate(present(token), SCOPE)
    issuer.is_down = True
    time.sleep(1.1)
    if accepted:
        assert authenticate(present(token), SCOPE)
    else:
        assert refuse(authenticate, present(token), SCOPE).status == 503
    issuer.is_down = False
    time.sleep(1.1)
    assert authenticate(present(token), SCOPE)


def test_a_list_is_not_kept_beyond_its_exp(make, issuer, present):
    issuer.status_list = {"ttl": 1, "exp": int(time.time()) + 2}
    _, authenticate = make(status_kept_seconds=600)
    token = issuer.token(SCOPE)
    authenticate(present(token), SCOPE)
    issuer.is_down = True
    time.sleep(2.2)
    assert refuse(authenticate, present(token), SCOPE).status == 503


def test_dropped_caches_end_a_list_at_once(make, issuer, present):
    """Also with `status_kept_seconds`."""
    verifier, authenticate = make(status_kept_seconds=600)
    token = issuer.token(SCOPE)
    authenticate(present(token), SCOPE)
    issuer.revoke(token)
    assert authenticate(present(token), SCOPE)
    verifier.drop_caches()
    assert refuse(authenticate, present(token), SCOPE).reason == "revoked"
    issuer.is_down = True
    verifier.drop_caches()
    assert refuse(authenticate, present(token), SCOPE).status == 503


def test_many_requests_cause_one_fetch(issuer, present):
    async def run():
        verifier = AsyncVerifier(issuer.url, DEFAULT_AUDIENCE, mode="status")
        requests = [present(issuer.token(SCOPE)) for _ in range(50)]
        await asyncio.gather(*(verifier.authenticate(each, SCOPE) for each in requests))

    asyncio.run(run())
    assert (issuer.list_fetches, issuer.fetches) == (1, 1)


def test_a_negative_time_is_a_wrong_setting():
    with pytest.raises(ConfigurationError, match="status_kept_seconds"):
        Verifier("https://a.example", "x", mode="status", status_kept_seconds=-1)
