"""Log-in at an OpenID Connect provider that tells the truth, lies, is slow, or is away."""

import json
import time
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from authz_server.operations.permissions import AuthenticationTooOldError, authorise
from authz_server.settings import SettingsError
from support.lying_provider import CLIENT_ID, CLIENT_SECRET, LyingProvider
from support.people_site import Visitor, running_people_site

CALLBACK = "/login/openid/callback"
STRONG = "urn:example:strong"


@pytest.fixture(scope="module")
def provider():
    """The provider of the file."""
    with LyingProvider() as made:
        yield made


@pytest.fixture(scope="module")
def people(module_database_url: str, tmp_path_factory, provider):
    """The pages of people, with a provider, once for each dialect."""
    directory = tmp_path_factory.mktemp("openid")
    (directory / "client-secret").write_text(CLIENT_SECRET)
    openid = {
        "issuer": provider.issuer,
        "client_id": CLIENT_ID,
        "client_secret": {"file": "client-secret"},
        "acr_values": [STRONG],
        "roles": {
            "security": ["security-officer"],
            "mappers": [{"role": "api-owner", "resource_servers": ["mapper"]}],
        },
    }
    tables = {
        "admin": {"openid": openid},
        # Each test gives the provider other documents.
        "outbound": {"plain_http": True, "timeout_seconds": 1, "minimum_cache_seconds": 1},
    }
    with running_people_site(directory, module_database_url, tables) as site:
        yield site


@pytest.fixture
def visitor(people, provider) -> Visitor:
    """A browser, while the provider tells the truth."""
    provider.reset()
    for app in people.apps:
        forget_documents(app)
    return Visitor(people)


def forget_documents(app) -> None:
    """Fetch the provider's documents again, whatever they said before."""
    fetcher = app.people.provider._fetcher  # noqa: SLF001 - it caches for a second at least
    fetcher._documents.clear()  # noqa: SLF001
    fetcher._empty.clear()  # noqa: SLF001


def begin(visitor: Visitor, **query: str) -> str:
    """Begin a log-in; return where the browser is sent."""
    answer = visitor.get(f"/login/openid?{urlencode(query)}")
    assert answer.status_code == 302, answer.text
    return answer.headers["Location"]


def come_back(visitor: Visitor, parameters: dict[str, str]):
    return visitor.get(f"{CALLBACK}?{urlencode(parameters)}")


def log_in(visitor: Visitor, provider: LyingProvider, **query: str):
    return come_back(visitor, provider.authorise(begin(visitor, **query)))


def require_refused(answer, people, reason: str, status: int = 403) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    record = people.records("operator.sign_in_refused")[-1]
    assert record["reason"] == reason, record
    assert record["path"] in {CALLBACK, "/login/openid"}
    return record


def test_a_person_logs_in_with_the_roles_of_the_groups(people, visitor, provider):
    url = begin(visitor, next="/clients?q=a")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == f"https://admin.example{CALLBACK}"
    assert asked["scope"] == "openid profile"
    assert asked["nonce"]
    before = visitor.cookie
    # Another worker ends what this one began.
    visitor.worker = 1
    answer = come_back(visitor, provider.authorise(url))
    assert (answer.status_code, answer.headers["Location"]) == (303, "/clients?q=a")
    assert visitor.cookie != before
    (form,) = provider.token_requests
    assert form["code_verifier"]
    caller = visitor.caller()
    assert (caller.name, caller.operator_id) == ("ada (person-1)", "openid:person-1")
    assert caller.actor == "operator:ada (person-1) via console"
    assert caller.groups == ("security",)
    record = people.records("operator.signed_in")[-1]
    assert record["issuer"] == provider.issuer
    assert (record["groups"], record["amr"]) == (["security"], ["pwd", "otp"])


def test_a_role_of_a_group_may_be_limited(visitor, provider):
    provider.claims = {"groups": ["mappers", "unknown"]}
    log_in(visitor, provider)
    limits = visitor.caller().limits_for("scopes:write")
    assert limits.resource_servers == frozenset({"mapper"})


def test_groups_may_come_from_the_userinfo_endpoint_of_the_same_person(people, visitor, provider):
    provider.claims = {"groups": None, "preferred_username": None}
    provider.userinfo = {"sub": "person-1", "groups": ["security"], "preferred_username": "grace"}
    log_in(visitor, provider)
    assert visitor.caller().name == "grace (person-1)"
    other = Visitor(people)
    provider.userinfo["sub"] = "person-2"
    require_refused(log_in(other, provider), people, "provider_answer_invalid")
    assert other.caller() is None


def test_the_groups_may_be_within_an_object(people, visitor, provider, monkeypatch):
    """As Keycloak writes roles; a whole name with dots comes first."""
    nested, address = "realm_access.roles", "https://a.example/roles"
    for name, claims, userinfo in (
        (nested, {"realm_access": {"roles": ["x", "security"]}}, {}),
        (nested, {}, {"realm_access": {"roles": "security"}}),
        (address, {address: ["security"]}, {}),
    ):
        for app in people.apps:
            ours = app.people.provider
            changed = msgspec.structs.replace(ours._settings, groups_claim=name)  # noqa: SLF001
            monkeypatch.setattr(ours, "_settings", changed)
        provider.claims = {"groups": None, **claims}
        provider.userinfo = {"sub": "person-1", **userinfo}
        assert log_in(visitor, provider).status_code == 303
        assert "security" in visitor.caller().groups
    for lie in ("security", ["security"], {"roles": {"security": True}}, None):
        provider.claims = {"groups": None, "realm_access": lie}
        require_refused(log_in(Visitor(people), provider), people, "no_role")


def test_a_person_without_a_role_stays_outside(people, visitor, provider):
    provider.userinfo = {"sub": "person-1"}
    for groups in (None, [], ["staff"], "staff", {"security": True}):
        provider.claims = {"groups": groups}
        answer = log_in(visitor, provider)
        require_refused(answer, people, "no_role")
        assert "None of your groups has a role" in answer.text
        assert visitor.caller() is None


def test_a_sensitive_act_needs_a_strong_log_in_just_now(people, visitor, provider):
    log_in(visitor, provider)
    with pytest.raises(AuthenticationTooOldError):
        authorise(visitor.caller(), "keys:rotate", now=people.clock())
    page = visitor.get("/login?step_up=1&next=/keys").text
    assert "/login/openid?next=%2Fkeys&amp;step_up=1" in page
    assert "data-passkey" not in page
    url = begin(visitor, step_up="1", next="/keys")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert (asked["max_age"], asked["prompt"], asked["acr_values"]) == ("0", "login", STRONG)
    before = visitor.cookie
    for claims in (
        {"acr": "urn:example:weak"},
        {"acr": STRONG, "auth_time": int(time.time()) - 60},
        {"acr": STRONG, "auth_time": None},
        {"acr": STRONG, "auth_time": "now"},
        {"acr": STRONG, "auth_time": -(10**15)},
        {"acr": STRONG, "auth_time": 10**400},
    ):
        provider.claims = claims
        answer = log_in(visitor, provider, step_up="1")
        assert answer.status_code == 403
        assert visitor.cookie == before
    provider.claims = {"acr": STRONG, "sub": "person-2"}
    require_refused(log_in(visitor, provider, step_up="1"), people, "other_person")
    provider.claims = {"acr": STRONG}
    answer = log_in(visitor, provider, step_up="1", next="/keys")
    assert answer.headers["Location"] == "/keys"
    assert visitor.cookie != before
    authorise(visitor.caller(), "keys:rotate", now=people.clock())
    assert people.records("operator.signed_in")[-1]["again"] is True


def test_a_state_counts_once_and_in_the_browser_that_it_was_made_for(people, visitor, provider):
    parameters = provider.authorise(begin(visitor))
    # Another browser is made to follow the answer (session riding).
    require_refused(come_back(Visitor(people), parameters), people, "log_in_over", 400)
    for forged in ("", "x", parameters["state"] + "x"):
        answer = come_back(visitor, {**parameters, "state": forged})
        require_refused(answer, people, "log_in_over", 400)
    assert not provider.token_requests
    assert come_back(visitor, parameters).status_code == 303
    require_refused(come_back(visitor, parameters), people, "log_in_over", 400)
    # The code of one log-in with the state of another.
    again = provider.authorise(begin(visitor))
    answer = come_back(visitor, {**again, "code": parameters["code"]})
    assert require_refused(answer, people, "provider_refused")["detail"] == "invalid_grant"
    # Two answers at once.
    url = f"{CALLBACK}?{urlencode(provider.authorise(begin(visitor)))}"
    require_refused(visitor.get(f"{url}&state=x"), people, "log_in_over", 400)


def test_an_answer_of_another_issuer_is_not_exchanged(people, visitor, provider):
    """RFC 9207: mix-up."""
    for issuer in ("https://evil.example", "", None):
        parameters = provider.authorise(begin(visitor))
        named = {"iss": issuer} if issuer is not None else {}
        del parameters["iss"]
        answer = come_back(visitor, {**parameters, **named})
        require_refused(answer, people, "provider_answer_invalid")
    assert not provider.token_requests


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["another", CLIENT_ID]},
        {"aud": ["another", CLIENT_ID], "azp": "another"},
        {"aud": None},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 1},
        {"sub": "x" * 256},
        {"exp": 1},
        {"exp": None},
        {"iat": 4_000_000_000},
        {"nbf": 4_000_000_000},
    ],
)
def test_an_id_token_with_a_wrong_claim_is_refused(people, visitor, provider, claims):
    provider.claims = claims
    require_refused(log_in(visitor, provider), people, "provider_answer_invalid")
    assert visitor.caller() is None


@pytest.mark.parametrize(
    "sign",
    [
        lambda claims: jwt.encode(claims, None, algorithm="none"),
        lambda claims: jwt.encode(claims, CLIENT_SECRET + " long enough", algorithm="HS256"),
        lambda claims: jwt.encode(claims, generate_private_key(SECP256R1()), algorithm="ES256"),
        lambda _: "",
        lambda _: "a.b.c",
        lambda _: None,
        lambda _: {"a": 1},
    ],
    ids=["none", "HS256", "another key", "empty", "malformed", "null", "object"],
)
def test_an_id_token_without_a_right_signature_is_refused(people, visitor, provider, sign):
    provider.sign = sign
    require_refused(log_in(visitor, provider), people, "provider_answer_invalid")
    assert visitor.caller() is None


def test_an_answer_that_can_be_read_in_two_ways_is_refused(people, visitor, provider):
    """One reader takes the first of two members, another one the last."""

    def twice(members):
        return json.dumps(members)[:-1].encode() + b', "sub": "other", "sub": "operator"}'

    def sign(claims):
        return jwt.PyJWS().encode(twice(claims), provider.key, "ES256", {"kid": "1"})

    provider.sign = sign
    require_refused(log_in(visitor, provider), people, "provider_answer_invalid")
    provider.reset()
    parameters = provider.authorise(begin(visitor))
    provider.replies["/token"] = (200, twice({"access_token": "a", "token_type": "Bearer"}))
    require_refused(come_back(visitor, parameters), people, "provider_answer_invalid")
    assert visitor.caller() is None


@pytest.mark.parametrize(
    "lie",
    [
        ("/token", 200, b"{"),
        ("/token", 200, b"[]"),
        ("/token", 200, b"{}"),
        ("/token", 200, b"\xff"),
        ("/token", 200, b"[" * 50_000),
        ("/token", 302, b"{}"),
        ("/token", 500, b"<html>"),
        ("/token", 200, b" " * 10_000_000),
        ("/jwks", 200, b"[]"),
        ("/jwks", 200, b'{"keys": 1}'),
        ("/jwks", 500, b""),
    ],
    ids=lambda value: str(value)[:12],
)
def test_an_answer_that_is_none_is_refused_in_bounded_time(people, visitor, provider, lie):
    path, status, body = lie
    parameters = provider.authorise(begin(visitor))
    provider.replies[path] = (status, body)
    before = time.monotonic()
    answer = come_back(visitor, parameters)
    assert time.monotonic() - before < 15
    assert answer.status_code in {403, 503}
    assert people.records("operator.sign_in_refused")[-1]["reason"].startswith("provider_")
    assert visitor.caller() is None


def test_a_provider_that_drips_is_left_after_the_time_limit(people, visitor, provider):
    parameters = provider.authorise(begin(visitor))
    provider.delay_seconds = 20
    before = time.monotonic()
    answer = come_back(visitor, parameters)
    assert time.monotonic() - before < 15
    require_refused(answer, people, "provider_unavailable", 503)
    assert "does not answer" in answer.text


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": None},
        {"token_endpoint": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "http://evil.example/a b"},
        {"jwks_uri": 1},
    ],
)
def test_metadata_that_lies_is_not_used(people, visitor, provider, metadata):
    provider.metadata = metadata
    answer = visitor.get("/login/openid")
    require_refused(answer, people, "provider_answer_invalid")


def test_members_of_the_metadata_do_not_become_options_of_the_client(visitor, provider):
    provider.metadata = {"client_secret": "x", "scope": "x", "update_token": "x", "prompt": "none"}
    assert log_in(visitor, provider).status_code == 303


def test_a_refusal_of_the_provider_is_shown_and_recorded(people, visitor, provider):
    state = provider.authorise(begin(visitor))["state"]
    parameters = {"error": "access_denied", "error_description": "<b>no</b>", "state": state}
    answer = come_back(visitor, {**parameters, "iss": provider.issuer})
    record = require_refused(answer, people, "provider_refused")
    assert record["detail"] == "access_denied"
    assert "<b>" not in answer.text


def test_a_provider_that_is_away_is_a_sentence(tmp_path, sqlite_url):
    openid = {
        "issuer": "http://localhost:1025",
        "client_id": CLIENT_ID,
        "client_secret": {"file": "client-secret"},
    }
    (tmp_path / "client-secret").write_text(CLIENT_SECRET)
    with running_people_site(tmp_path, sqlite_url, {"admin": {"openid": openid}}) as site:
        visitor = Visitor(site)
        answer = visitor.get("/login/openid")
        require_refused(answer, site, "provider_unavailable", 503)
        # Passkeys do not need it.
        assert "data-passkey" in visitor.get("/login").text


def test_without_a_provider_there_is_no_such_log_in(tmp_path, sqlite_url):
    with running_people_site(tmp_path, sqlite_url) as site:
        for path in ("/login/openid", CALLBACK):
            require_refused(Visitor(site).get(path), site, "no_provider", 404)


@pytest.mark.parametrize("role", ["unknown", "api-owner"])
def test_a_group_has_a_role_that_exists_with_the_limits_that_it_needs(tmp_path, sqlite_url, role):
    openid = {
        "issuer": "https://login.example",
        "client_id": CLIENT_ID,
        "client_secret": {"file": "client-secret"},
        "roles": {"staff": [role]},
    }
    (tmp_path / "client-secret").write_text(CLIENT_SECRET)
    with (
        pytest.raises(SettingsError, match=r"admin\.openid\.roles\.staff"),
        running_people_site(tmp_path, sqlite_url, {"admin": {"openid": openid}}),
    ):
        pass
