"""Callers with bound tokens: DPoP (RFC 9449, 7) and certificates (RFC 8705, 3)."""

import hashlib
from base64 import urlsafe_b64encode

import pytest
from werkzeug.test import Client

from authz_server.clients.registrations import ADMIN_IDENTIFIER
from authz_server.operations.admin_api import ADMIN_SERVER
from authz_server.operations.clients import update_client
from support.admin_site import FROM, URL, create_caller, require_problem, running_admin_site
from support.client_certificates import header_value, self_signed
from support.dpop import ProofKey
from support.parties import ACTOR
from support.token_exchange import ACCESS_TOKEN, GRANT_TYPE

PATH = "/clients"


def _hash(token: str) -> str:
    return urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()


class Holder:
    """A caller that holds a key, and its token, which is obtained with a nonce if there is one."""

    def __init__(self, site, nonce: str | None = None) -> None:
        self.site = site
        self.key = ProofKey()
        proof = self.key.prove(site.clock().timestamp(), nonce=nonce)
        self.token = site.new_token(client="dpop-caller", headers={"DPoP": proof})

    def prove(self, key: ProofKey | None = None, **claims) -> str:
        usual = {
            "htm": "GET",
            "htu": f"{URL}/admin/v1{PATH}",
            "ath": _hash(self.token),
        }
        return (key or self.key).prove(self.site.clock().timestamp(), **(usual | claims))

    def get(self, proof: str | None, *, scheme: str = "DPoP", path: str = PATH):
        headers = {"Authorization": f"{scheme} {self.token}"}
        if proof is not None:
            headers["DPoP"] = proof
        return self.site.get(path, token="", headers=headers)


@pytest.fixture
def holder(site) -> Holder:
    return Holder(site)


def test_a_bound_token_is_accepted_with_a_proof(holder):
    """The address of the proof is that of public_url; an encoded id stays encoded."""
    answer = holder.get(holder.prove())
    assert answer.status_code == 200, answer.text
    path = "/clients/a%2Fb"
    proof = holder.prove(htu=f"{URL}/admin/v1{path}")
    require_problem(holder.get(proof, path=path), 404, "not-found")


@pytest.mark.parametrize(
    "claims",
    [
        {"htm": "POST"},
        {"htu": f"{URL}/admin/v1/scopes"},
        {"htu": "https://elsewhere.example/admin/v1/clients"},
        {"ath": None},
        {"ath": _hash("another")},
        {"iat": 1},
        {"jti": None},
    ],
    ids=str,
)
def test_a_proof_for_another_request_is_refused(holder, claims):
    """Each member that ties a proof to its request is checked."""
    answer = holder.get(holder.prove(**claims))
    require_problem(answer, 401, "invalid-dpop-proof")
    assert answer.headers["WWW-Authenticate"].startswith("DPoP ")
    assert 'error="invalid_dpop_proof"' in answer.headers["WWW-Authenticate"]
    assert 'algs="' in answer.headers["WWW-Authenticate"]


def test_a_proof_is_used_once_and_by_its_key_alone(holder):
    """A copied proof, a proof by another key, and a missing proof are refused."""
    proof = holder.prove()
    assert holder.get(proof).status_code == 200
    require_problem(holder.get(proof), 401, "invalid-dpop-proof")
    require_problem(holder.get(holder.prove(ProofKey())), 401, "invalid-dpop-proof")
    require_problem(holder.get(None), 401, "invalid-dpop-proof")


def test_schemes_are_not_exchanged(site, holder):
    """A bound token is no bearer token (RFC 9449, 7.2), and a bearer token is not bound."""
    require_problem(holder.get(holder.prove(), scheme="Bearer"), 401, "invalid-token")
    headers = {"Authorization": f"DPoP {site.token()}", "DPoP": holder.prove()}
    require_problem(site.get(PATH, token="", headers=headers), 401, "invalid-token")


@pytest.mark.parametrize(
    "authorization",
    ["Bearer", "Bearer ", "Basic Zm9vOmJhcg==", "Bearer a b", "Bearer a, Bearer b", "Bearer \xe9"],
)
def test_a_malformed_header_is_refused(site, authorization):
    """Nothing but one token after a known scheme is read."""
    answer = site.get(PATH, token="", headers={"Authorization": authorization})
    require_problem(answer, 401, "invalid-token")


def test_a_token_in_the_query_or_the_form_is_not_read(site):
    """RFC 6750, 2.2 and 2.3 discourage both."""
    answer = site.get(f"{PATH}?access_token={site.token()}", token="")
    require_problem(answer, 401, "invalid-token")
    answer = site.send("POST", PATH, token="", data={"access_token": site.token()})
    require_problem(answer, 401, "invalid-token")


def test_the_networks_of_a_client_hold_here_too(site):
    """A stolen token is of no use from elsewhere."""
    made = site.new_client(
        id="at-home",
        allowed_scopes=["clients:read"],
        authentication_method="client_secret_post",
    )
    site.secrets["at-home"] = made["secret"]["value"]
    site.public.extensions["authz_server"].feed.poll()
    token = site.new_token("clients:read", client="at-home")
    assert site.get(PATH, token=token).status_code == 200
    update_client(
        site.services, "at-home", actor=ACTOR, properties={"allowed_networks": ["192.0.2.0/24"]}
    )
    site.services.feed.poll()
    require_problem(site.get(PATH, token=token), 401, "invalid-token")


def test_a_disabled_admin_api_answers_nobody(site):
    """Its own resource server is the switch; the command line turns it on again."""
    token = site.token()
    server = "/resource-servers/authz-server-admin"
    assert site.change("POST", f"{server}/disable", {}, item=server).status_code == 200
    site.services.feed.poll()
    require_problem(site.get(PATH, token=token), 401, "invalid-token")
    with site.services.transaction() as session:
        site.services.clients.set_enabled(session, "authz-server-admin", actor=ACTOR, enabled=True)
    site.services.feed.poll()
    assert site.get(PATH, token=token).status_code == 200


def test_the_admin_api_neither_deletes_nor_renames_itself(site):
    """Its scopes would be without an owner, for others to take."""
    server = "/resource-servers/authz-server-admin"
    refused = [
        site.change("DELETE", server, None, item=server),
        site.change("PATCH", server, {"identifier": "urn:other"}, item=server),
    ]
    for answer in refused:
        require_problem(answer, 409, "conflict")
    changed = site.change("PATCH", server, {"name": "Administration"}, item=server)
    assert changed.status_code == 200


def test_a_token_bound_to_a_certificate_needs_it(sqlite_url, tmp_path):
    """The proxy passes the certificate of the connection, as at the public listener."""
    overrides = {
        "server": {"trusted_proxies": ["127.0.0.1"]},
        "client_certificates": {"source": "nginx"},
    }
    mine, other = self_signed("CN=caller"), self_signed("CN=other")
    with running_admin_site(tmp_path, sqlite_url, overrides) as site:
        update_client(
            site.services,
            "caller",
            actor=ACTOR,
            properties={"tls_client_certificate_bound_access_tokens": True},
        )
        for app in (site.public, site.app):
            app.extensions["authz_server"].feed.poll()
        shown = header_value("nginx", mine.der)
        token = site.new_token(headers=shown)
        assert site.get(PATH, token=token, headers=shown).status_code == 200
        require_problem(site.get(PATH, token=token), 401, "invalid-token")
        elsewhere = header_value("nginx", other.der)
        require_problem(site.get(PATH, token=token, headers=elsewhere), 401, "invalid-token")


def test_a_proof_needs_a_nonce_if_the_settings_require_one(sqlite_url, tmp_path):
    """The refusal brings the nonce (RFC 9449, 9)."""
    with running_admin_site(tmp_path, sqlite_url, {"dpop": {"nonce": "required"}}) as site:
        proof = ProofKey().prove(site.clock().timestamp())
        refused = site.ask_token(client="dpop-caller", headers={"DPoP": proof})
        holder = Holder(site, refused.headers["DPoP-Nonce"])
        answer = holder.get(holder.prove())
        require_problem(answer, 401, "invalid-dpop-proof")
        assert 'error="use_dpop_nonce"' in answer.headers["WWW-Authenticate"]
        assert holder.get(holder.prove(nonce=answer.headers["DPoP-Nonce"])).status_code == 200


def test_a_caller_may_send_so_many_requests_a_minute(sqlite_url, tmp_path):
    """The limit is of each caller; another one is not held up."""
    admin = {"enabled": True, "public_url": URL, "requests_per_minute": 3}
    with running_admin_site(tmp_path, sqlite_url, {"admin": admin}) as site:
        for _ in range(3):
            assert site.get("/scopes").status_code == 200
        answer = site.get("/scopes")
        require_problem(answer, 429, "too-many-requests")
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert Holder(site).get(None).status_code == 401
        refused = site.audit_path.read_text()
        assert '"too_many_requests"' in refused
        assert '"invalid_dpop_proof"' in refused


@pytest.mark.parametrize("impersonation", [False, True], ids=["actor", "impersonation"])
@pytest.mark.parametrize("scheme", ["Bearer", "DPoP"])
def test_a_token_that_was_exchanged_for_another_client_is_refused(
    site, monkeypatch, scheme, impersonation
):
    """It would act with the name of the one, and without the limits of the other."""
    name = f"{scheme}-{impersonation}".lower()
    tool, gateway = f"tool-{name}", f"gateway-{name}"
    policy = {"subjects": [tool], "audiences": [ADMIN_SERVER], "impersonation": impersonation}
    bound = {"dpop_bound_access_tokens": True} if scheme == "DPoP" else {}
    grants = {"grant_types": ["client_credentials", GRANT_TYPE]}
    limited = bound | {"admin_organisations": ["Treasury"]}
    site.secrets[tool] = create_caller(site.services, tool, properties=limited)
    exchanging = bound | {"token_exchange": policy}
    site.secrets[gateway] = create_caller(site.services, gateway, properties=exchanging, **grants)
    for app in (site.public, site.app):
        app.extensions["authz_server"].feed.poll()
    key, now = ProofKey(), site.clock().timestamp

    def prove(**claims):
        return {"DPoP": key.prove(now(), **claims)} if bound else {}

    form = {
        "grant_type": GRANT_TYPE,
        "client_id": gateway,
        "client_secret": site.secrets[gateway],
        "scope": "clients:read",
        "subject_token": site.new_token("clients:read", client=tool, headers=prove()),
        "subject_token_type": ACCESS_TOKEN,
    }
    post = Client(site.public).post
    answer = post("/oauth2/token", data=form, headers=prove(), environ_base=FROM)
    assert answer.status_code == 200, answer.text
    token = answer.json["access_token"]
    proof = prove(htm="GET", htu=f"{URL}/admin/v1{PATH}", ath=_hash(token))
    headers = {"Authorization": f"{scheme} {token}", **proof}
    events = []
    monkeypatch.setattr(site.services, "notify", events.append)
    problem = require_problem(site.get(PATH, token="", headers=headers), 401, "invalid-token")
    assert "obtained for itself" in problem["detail"]
    assert [each.detail for each in events] == [f"{gateway} {problem['detail']}"]


@pytest.mark.parametrize("further", [{}, {"client_id": "elsewhere"}, {"sub": "caller"}], ids=str)
def test_a_token_of_another_issuer_is_refused(site, monkeypatch, further):
    """A source of introspection may describe one for the admin API, also without a client."""

    async def find_active(*_):
        return {"aud": ADMIN_IDENTIFIER, "scope": "clients:read", "iss": "https://a", **further}

    monkeypatch.setattr(site.services.introspection, "find_active", find_active)
    require_problem(site.get(PATH, token="foreign"), 401, "invalid-token")
